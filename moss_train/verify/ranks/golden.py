"""Recorded quantities of the reference model replayed in a layout that several processes hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from model.errors import InputError
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.verify.golden import TOLERANCE, read_golden, replay_training
from moss_train.verify.layouts.names import parse_layout
from moss_train.verify.ranks.findings import CaseResult


def replay(name: str, folder: Path, device: torch.device, tell: Callable[[CaseResult], None]) -> None:
    """Training's quantities of a recorded folder, in fp32 with torch's modules; the largest absolute difference of each."""
    begin, result = time.monotonic(), CaseResult("golden", name, dist.get_world_size(), "torch", "fp32")
    sizes = parse_layout(name).sizes
    try:
        start_layout(sizes, device, seed=1)
        found, _ = replay_training(read_golden(folder), sizes, device)
        result.figures = dict(found)
        for what, value in found:
            result.expect(value <= TOLERANCE, f"{what} {value:.1e} > {TOLERANCE:g}")
    except InputError as error:  # found by every rank alike
        result.reasons.append(str(error))
    finally:
        stop_layout()
    result.seconds = time.monotonic() - begin
    tell(result)
