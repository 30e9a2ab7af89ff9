"""Fitting frames into the model's square: aspect kept, bilinear with antialias, zeros at the bottom and right."""

from __future__ import annotations

import math

import torch


def fitted_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) in pixels of the largest copy that fits into size x size; small images grow."""
    if size / width < size / height:
        return size, max(1, min(math.floor(height * size / width), size))
    return max(1, min(math.floor(width * size / height), size)), size


def fit_frames(frames: torch.Tensor, size: int) -> torch.Tensor:
    """Resize and pad.

    Args:
        frames: uint8 [F, height, width, 3].

    Returns:
        uint8 [F, 3, size, size], contiguous.
    """
    count, height, width, _ = frames.shape
    new_width, new_height = fitted_size(width, height, size)
    planes = frames.permute(0, 3, 1, 2)  # a channels-last view, the layout that the uint8 kernel is fast on
    if (new_width, new_height) != (width, height):
        planes = torch.nn.functional.interpolate(
            planes, size=(new_height, new_width), mode="bilinear", align_corners=False, antialias=True
        )
    fitted = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    fitted[:, :, :new_height, :new_width] = planes
    return fitted
