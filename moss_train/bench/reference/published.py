"""What the reference's own code was measured at: the figures that a run of its way here is held against."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One sample a step, forward and backward, everything trained, bf16."""

    frames: int
    frames_per_second: float
    tflops: float
    """Model operations a second, 1e12."""
    peak_gib: float
    rows: int
    """Of the sample, frames included. Not stated: the length at which the formulas of `moss_train.planning.flops` give the
    operations that the two rates imply, tflops / frames_per_second * frames, rounded to a multiple of 16."""


CARD = "NVIDIA H200"
TEXT_LAYERS = 10
"""Decoder layers of the figures, cross layers at 3 and 8; the tower is whole."""
PUBLISHED = {
    figures.frames: figures
    for figures in (
        Published(8, 29.1, 304.0, 16.2, 608),
        Published(64, 38.7, 367.0, 31.9, 1088),
        Published(128, 39.0, 367.0, 49.9, 1536),
        Published(256, 38.3, 364.0, 86.0, 4096),
    )
}
"""By frames. PyTorch modules, scaled dot-product attention everywhere, a dense additive mask for the cross layers, every layer of
decoder and tower checkpointed, no packing."""
