"""Launches of as many programs as run at once: each goes on from rows to rows, and sums on the way what a parameter takes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from model.kernels import rows
from model.kernels.select import multiprocessors


class Launch(NamedTuple):
    """How such a kernel is launched."""

    rows: int
    """Rows that a program holds at once."""
    warps: int
    programs: int
    """Of a multiprocessor."""
    stages: int = 1
    """Loads of so many rounds are on their way at once."""


def programs(x: Tensor, launch: Launch) -> int:
    """How many programs share the rows of x [rows, width]."""
    return min(-(-x.shape[0] // launch.rows), launch.programs * multiprocessors(x.device))


def pieces(x: Tensor, launch: Launch) -> dict[str, int | bool]:
    """Constants of a kernel over x [rows, width]."""
    return rows.pieces(x.shape[0], x.shape[1], rows.Launch(launch.rows, launch.warps)) | {"STAGES": launch.stages}
