"""Frames that show what the last encoded one showed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

THUMBNAIL = 64
"""Pixels along a side."""


def thumbnail(frame: Tensor) -> Tensor:
    """uint8 [C, S, S] -> fp32 [C, 64, 64] of mean levels (smaller frames keep their size): codecs' noise averages out."""
    side = min(THUMBNAIL, frame.shape[-1])
    return F.adaptive_avg_pool2d(frame.float(), side)


def difference(one: Tensor, other: Tensor) -> float:
    """Levels by which the thumbnails differ where they differ most: a small object that moves counts as much as a large one."""
    return float((one - other).abs().max())


class DuplicateFilter:
    """Compares every frame with the last one that was encoded, so that slow changes add up until they count.

    Args:
        threshold: levels of 255; a frame is a duplicate if it differs by fewer.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._last: Tensor | None = None

    def is_duplicate(self, frame: Tensor) -> bool:
        """Whether uint8 [C, S, S], in the host's memory, shows the same; if not, it becomes the one to compare with."""
        now = thumbnail(frame)
        if self._last is not None and difference(now, self._last) < self.threshold:
            return True
        self._last = now
        return False

    def forget(self) -> None:
        """The next frame is no duplicate: the last one was dropped before it was encoded."""
        self._last = None
