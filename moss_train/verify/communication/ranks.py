"""One rank of the count: steps of a list of cases, each beside what the plan says of it."""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.spawn import answer, report_progress
from moss_train.parallel.world import start_world, stop_world
from moss_train.planning.communication.step import step_traffic
from moss_train.verify.communication.case import Case
from moss_train.verify.communication.trial import count_step, run_config, shape_of


def count(request: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All cases of a request; the same on every rank: what each rank counted, and what the plan says of it."""
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    device = torch.device("cpu")
    torch.set_num_threads(1)
    start_world(device)
    results = []
    for content in request:
        case = Case.of(content)
        layout = start_layout(case.sizes, device, seed=1)
        counted = count_step(case, layout)
        planned = step_traffic(run_config(case), layout.world_size, shape_of(case, layout.data_size), layout.rank)
        everyone: list[Any] = [None] * layout.world_size
        dist.all_gather_object(everyone, (counted.as_json(), planned.as_json()))
        stop_layout()
        results.append({"case": content, "ranks": [{"counted": c, "planned": p} for c, p in everyone]})
        if dist.get_rank() == 0:
            report_progress(results[-1])
    dist.barrier()
    stop_world()
    return results


def main(arguments: list[str]) -> int:
    """`RESULT REQUEST`: one rank; the request is a JSON list of cases."""
    request = json.loads(Path(arguments[1]).read_text(encoding="utf-8"))
    return answer(Path(arguments[0]), lambda: count(request))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
