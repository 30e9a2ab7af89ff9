"""The part of a frame that holds a picture. Resizing that keeps the aspect ratio leaves zeros at the bottom or on the right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import VisionConfig
from model.errors import InputError


@dataclass(frozen=True)
class Region:
    """Patches at the top left that are computed."""

    rows: int
    columns: int

    def union(self, other: Region) -> Region:
        """The smallest region that holds both."""
        return Region(max(self.rows, other.rows), max(self.columns, other.columns))

    def tokens(self, grid: int) -> Tensor:
        """int64 [1 + rows * columns]: their places among the tower's 1 + grid * grid tokens, the class token first."""
        patches = torch.arange(self.rows)[:, None] * grid + torch.arange(self.columns)
        return torch.cat([torch.zeros(1, dtype=torch.int64), 1 + patches.flatten()])

    def skipped(self, grid: int) -> Tensor:
        """int64: the places of the tokens that are not computed."""
        left_out = torch.ones(1 + grid * grid, dtype=torch.bool)
        left_out[self.tokens(grid)] = False
        return left_out.nonzero().flatten()


def whole(vision: VisionConfig) -> Region:
    """Every patch."""
    return Region(vision.grid_size, vision.grid_size)


def region_of_size(height: int, width: int, vision: VisionConfig) -> Region:
    """The patches that a picture of so many pixels touches.

    Raises:
        InputError: a size outside the frame.
    """
    side = vision.image_size
    if not (0 < height <= side and 0 < width <= side):
        raise InputError(f"a frame's picture is {height} x {width} pixels; it must lie within 1 x 1 and {side} x {side}")
    return Region(-(-height // vision.patch_size), -(-width // vision.patch_size))


def detect_region(frames: Tensor, vision: VisionConfig) -> Region:
    """The smallest region outside which all frames are zero, at least one patch.

    In the host's memory only bytes that are zero are read, and one band more. On a device all are, and the host waits once.

    Args:
        frames: uint8 [F, 3, S, S].
    """
    grid, patch = vision.grid_size, vision.patch_size
    if frames.is_cuda:
        return region_of_maxima(frames, vision)
    rows = _last((frames[:, :, i * patch : (i + 1) * patch] for i in reversed(range(grid))), grid)
    lit = frames[:, :, : rows * patch]
    columns = _last((lit[..., i * patch : (i + 1) * patch] for i in reversed(range(grid))), grid)
    return Region(rows, columns)


def region_of_maxima(frames: Tensor, vision: VisionConfig) -> Region:
    """`detect_region` in two reductions and one copy to the host."""
    grid, patch = vision.grid_size, vision.patch_size
    brightest = torch.stack([frames.amax((0, 1, 3)), frames.amax((0, 1, 2))]).cpu()  # [2, S]: of pixel rows, of columns
    lit_rows, lit_columns = brightest.unflatten(1, (grid, patch)).amax(-1).bool()
    return Region(_last(iter(lit_rows.flip(0).split(1)), grid), _last(iter(lit_columns.flip(0).split(1)), grid))


def _last(bands: Iterator[Tensor], count: int) -> int:
    """1 + the index of the last of `count` bands that is not zero; they come last first. At least 1."""
    # The first frame mostly says it: narrow bands of all frames are scattered bytes.
    return next((count - i for i, band in enumerate(bands) if bool(band[:1].any()) or bool(band.any())), 1)
