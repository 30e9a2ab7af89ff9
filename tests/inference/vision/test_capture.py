"""A call that was made before can be captured as a CUDA graph: shown without a GPU, by the operations that it consists of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VISION_MODES
from inference.vision.region import Region, whole
from tests.inference.vision.towers import random_frames, vision_encoder

HOST = {"lift_fresh", "_local_scalar_dense", "nonzero", "_unique2", "equal", "masked_select"}
"""Numbers from the host, or to it: a copy that the host waits for, or a shape that depends on values."""


class Operations(TorchDispatchMode):
    """Names of the operations that run while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", list(VISION_MODES))
@pytest.mark.parametrize("region", [None, Region(3, 4)])
def test_a_call_of_the_tower_exchanges_nothing_with_the_host(name: str, region: Region | None) -> None:
    vision = vision_encoder()
    tower = FrameEncoder(vision, mode=VISION_MODES[name]).tower
    region = region or whole(vision.config.vision)
    patch = vision.config.vision.patch_size
    pixels = random_frames(2)[:, :, : region.rows * patch, : region.columns * patch]
    tower.run(pixels, region)  # makes its tables
    with Operations() as seen:
        tower.run(pixels, region)
    assert "linear" in seen.names
    assert not seen.names & HOST


def test_an_exchange_with_the_host_is_seen() -> None:
    with Operations() as seen:
        torch.tensor([1.0, 2.0])
        torch.ones(2).nonzero()
        float(torch.ones(()))
    assert seen.names >= {"lift_fresh", "nonzero", "_local_scalar_dense"}
