"""Run on 2 ranks: the same training with streaming evaluations, without, and with such that fail.

Usage: evaluation_ranks DATA_DIR OUT_DIR SCENARIOS DAMAGED_SCENARIOS
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from moss_train.cli.in_training import make_scorer
from moss_train.evaluation.streaming import Scorer, StreamingEvaluation
from moss_train.parallel.layout import stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.setup import Session
from moss_train.trainer import train
from tests.moss_train.runs import run_config

LAYOUTS: dict[str, dict[str, Any]] = {
    "tp2": {"parallel__tensor": 2, "data__global_data_workers": 1},
    "pp2": {"parallel__pipeline": 2, "data__global_data_workers": 1},
    "lora": {"parallel__tensor": 2, "data__global_data_workers": 1, "lora__rank": 2, "lora__alpha": 8.0},
    "dp2": {},
}


class Keeping(Scorer):
    """Writes down the weights that it is given."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, torch.Tensor] = {}

    def begin(self, device: torch.device, dtype: torch.dtype) -> None:
        self._tensors = {}

    def take(self, name: str, tensor: torch.Tensor) -> None:
        self._tensors[name] = tensor.to("cpu", copy=True).contiguous()

    def run(self, share: int, shares: int) -> int:
        save_file(self._tensors, str(self._path))
        return len(self._tensors)

    def score(self, parts: Iterable[Any]) -> dict[str, float]:
        return {"tensors": float(sum(parts))}

    def forget(self) -> None:
        self._tensors = {}


class Drawing(Scorer):
    """Draws random numbers; cannot take the weights on the last rank the first time, and on the first rank the second time."""

    def __init__(self, rank: int, ranks: int) -> None:
        self._breaks = [rank == broken for broken in (ranks - 1, 0, -1)]

    def begin(self, device: torch.device, dtype: torch.dtype) -> None:
        self._broken = self._breaks.pop(0)
        random.seed(1)
        torch.manual_seed(1)

    def take(self, name: str, tensor: torch.Tensor) -> None:
        if self._broken:
            raise torch.OutOfMemoryError("no room for " + name)

    def run(self, share: int, shares: int) -> int:
        return share

    def score(self, parts: Iterable[Any]) -> dict[str, float]:
        return {"sum": float(sum(parts))}

    def forget(self) -> None:
        return


def main(data: Path, out: Path, scenarios: str, damaged: str) -> None:
    """Run folders `LAYOUT_WHAT` under `out`."""
    start_world(resolve_device("auto"))

    def run(layout: str, what: str, make: Any = make_scorer, path: str = scenarios, **changes: Any) -> None:
        changes |= LAYOUTS[layout]
        if what != "plain":
            settings = {"evaluation__streaming_every": 2, "evaluation__streaming_scenarios": path}
            changes = settings | {"evaluation__streaming_together": 1} | changes
        config = run_config(data, out / f"{layout}_{what}", "pt2", 3, data__worker_processes=0, train__eval_batches=0, **changes)
        train(config, [StreamingEvaluation.maker(make)])
        stop_layout()

    for layout in LAYOUTS:
        run(layout, "plain")
        if layout in ("pp2", "lora"):
            run(layout, "kept", make=lambda session: Keeping(session.folder.path / "kept.safetensors"))
        else:
            run(layout, "first")
    run("dp2", "both", evaluation__streaming_ranks=9)
    run("dp2", "damaged", path=damaged, evaluation__streaming_ranks=2)

    def drawing(session: Session) -> Scorer:
        return Drawing(session.layout.rank, session.layout.world_size)

    run("tp2", "drawing", make=drawing, evaluation__streaming_ranks=2, evaluation__streaming_every=1)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
