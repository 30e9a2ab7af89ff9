"""Micro-batches made alike in what they call: every rank runs the tower equally often and its cross layers as well.

Gradients are reduced, and under stage 3 weights gathered, by hooks of the modules that run. A rank whose micro-batch has
no frames would skip the tower and all cross layers and leave the others waiting for ever. It is given blank frames in a
sample of their own behind its rows: no row has a target there and no other row sees them, so their gradient is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data_pipeline.packing.batch import PackedMicroBatch
from model.rows import IGNORE_INDEX, PackedRows


@dataclass(frozen=True)
class Calls:
    """How a rank runs one micro-batch."""

    tower: int
    """Calls of the tower, the same on all ranks; 0 where no rank has a frame in the whole step."""
    idle: int
    """Blank frames added here, so that every call has one."""


def plan_calls(frames: Sequence[Sequence[int]], rank: int, chunk: int) -> list[Calls]:
    """For each micro-batch of one rank, how often the tower is called.

    Args:
        frames: [ranks][micro-batches], frames of each; equally many micro-batches everywhere.
        rank: this one.
        chunk: most frames in one call.
    """
    if not any(any(counts) for counts in frames):
        return [Calls(0, 0) for _ in frames[rank]]
    most = [max(counts) for counts in zip(*frames, strict=True)]
    calls = [max(1, -(-count // chunk)) for count in most]
    return [Calls(n, max(0, n - own)) for n, own in zip(calls, frames[rank], strict=True)]


def add_idle(rows: PackedRows, frames: int, image_token: int) -> PackedRows:
    """The rows with a sample of blank frames behind them; `frames` 0 returns them as they are.

    Args:
        rows: T rows of N samples with F frames.
        frames: k, how many to add.
        image_token: token of a frame.

    Returns:
        T + k rows of N + 1 samples with F + k frames; the added rows have no target.
    """
    if not frames:
        return rows
    device, before = rows.input_ids.device, rows.num_frames
    positions = torch.arange(frames, dtype=torch.int64, device=device)

    def constant(value: int, like: torch.Tensor) -> torch.Tensor:
        return torch.full((frames,), value, dtype=like.dtype, device=device)

    def end(bounds: torch.Tensor) -> torch.Tensor:
        return torch.cat([bounds, bounds[-1:] + frames])

    seen = torch.arange(before + 1, before + frames + 1, device=device)
    return PackedRows(
        input_ids=torch.cat([rows.input_ids, constant(image_token, rows.input_ids)]),
        position_ids=torch.cat([rows.position_ids, positions]),
        cu_seqlens=end(rows.cu_seqlens),
        cu_frames=end(rows.cu_frames),
        frame_begin=torch.cat([rows.frame_begin, constant(before, rows.frame_begin)]),
        frame_end=torch.cat([rows.frame_end, seen.to(rows.frame_end.dtype)]),
        frame_positions=torch.cat([rows.frame_positions, positions]),
        targets=None if rows.targets is None else torch.cat([rows.targets, constant(IGNORE_INDEX, rows.targets)]),
    )


def pixels_of(batch: PackedMicroBatch, idle: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames uint8 [F + k, 3, S, S] and aspect ids int64 [F + k] of a micro-batch, k black ones behind its own."""
    frames, ids = batch.frames.to(device, non_blocking=True), batch.aspect_ratio_ids.to(device, non_blocking=True)
    if not idle:
        return frames, ids
    return torch.cat([frames, frames.new_zeros(idle, *frames.shape[1:])]), torch.cat([ids, ids.new_ones(idle)])
