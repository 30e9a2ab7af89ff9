"""Measuring how long a rank waits leaves torch's collectives as they were."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from moss_train.guards.waiting import WaitingTime
from moss_train.parallel.world import start_world
from moss_train.platform.device import resolve_device


@pytest.mark.parametrize("kind", ["cpu", "cuda"])  # what a GPU's way replaces can be replaced without one
def test_collectives_work_while_measuring_and_after_it(kind: str) -> None:
    start_world(resolve_device("auto"))
    types = torch._C._distributed_c10d
    before = {**types.ProcessGroup.__dict__}, {**types.Work.__dict__}
    waiting = WaitingTime(torch.device(kind))
    values = torch.ones(3)
    for _ in range(2):
        waiting.start()
        dist.all_reduce(values)
        dist.broadcast(values, 0)
        assert waiting.stop() >= 0
        assert ({**types.ProcessGroup.__dict__}, {**types.Work.__dict__}) == before
        dist.all_reduce(values)
        dist.all_gather_into_tensor(torch.empty(3), values)
    assert values.tolist() == [1.0, 1.0, 1.0]
