"""Recorded quantities of the reference model replayed in a layout that several processes hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from model.errors import InputError
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.verify.golden import TOLERANCE, Golden, read_golden, replay_training
from moss_train.verify.layouts.names import parse_layout
from moss_train.verify.ranks.agreed import gather_reasons
from moss_train.verify.ranks.findings import CaseResult


def replay(name: str, folder: Path, device: torch.device, tell: Callable[[CaseResult], None]) -> None:
    """Training's quantities of a recorded folder, in fp32 with torch's modules; the largest absolute difference of each."""
    begin, result = time.monotonic(), CaseResult("golden", name, dist.get_world_size(), "torch", "fp32")
    recorded: Golden | None = None
    try:
        recorded = read_golden(folder)
    except InputError as error:
        result.reasons.append(str(error))
    gather_reasons(result)  # a rank that cannot read must not leave the others waiting in the layout
    if recorded is not None and not result.reasons:
        _compare(recorded, result, device)
    result.seconds = time.monotonic() - begin
    tell(result)


def _compare(recorded: Golden, result: CaseResult, device: torch.device) -> None:
    sizes = parse_layout(result.layout).sizes
    try:
        start_layout(sizes, device, seed=1)
        found, _ = replay_training(recorded, sizes, device)
        result.figures = dict(found)
        result.expect(bool(found), "the recording holds nothing that training computes: vision_out, projected, logits, a loss")
        for what, value in found:
            result.expect(value <= TOLERANCE, f"{what} {value:.1e} > {TOLERANCE:g}")
    except InputError as error:  # of the sizes or the weights, found by every rank alike
        result.reasons.append(str(error))
    stop_layout()  # not behind another error: it ends the process, and groups that others wait in do not end
