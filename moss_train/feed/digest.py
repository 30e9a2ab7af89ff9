"""Checksums of a micro-batch, by which a replay shows that it has what a run had."""

from __future__ import annotations

import zlib

import torch

from data_pipeline.packing.batch import PackedMicroBatch

ROW_FIELDS = (
    "input_ids", "targets", "position_ids", "cu_seqlens", "cu_frames", "frame_begin", "frame_end", "frame_positions",
    "aspect_ratio_ids", "token_class", "dense_labels",
)  # fmt: skip
PIXEL_STRIDE = 16
"""Every so many pixels of a frame, in both directions, go into its checksum: all of them would take a tenth of a second."""


def rows_digest(batch: PackedMicroBatch) -> str:
    """CRC-32 of everything but pixels, 8 hexadecimal digits."""
    value = 0
    for name in ROW_FIELDS:
        tensor = getattr(batch, name)
        if tensor is not None:
            value = zlib.crc32(_bytes(tensor), value)
    return f"{value:08x}"


def pixels_digest(batch: PackedMicroBatch) -> str:
    """CRC-32 of a grid of the frames' pixels: another frame, another decoder or another size changes it."""
    grid = batch.frames[:, :, ::PIXEL_STRIDE, ::PIXEL_STRIDE]
    return f"{zlib.crc32(_bytes(grid)):08x}"


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
