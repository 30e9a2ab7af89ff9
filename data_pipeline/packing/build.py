"""From planned samples and their decoded frames to a packed micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from data_pipeline.packing.plan import SamplePlan


@dataclass
class PackedSample:
    """One sample of a pack."""

    key: str
    """dataset/key"""
    dataset_index: int
    plan: SamplePlan
    frames: torch.Tensor
    """uint8 [F, 3, size, size]"""


def build_micro_batch(samples: Sequence[PackedSample], rows: int, pad_id: int, image_size: int) -> PackedMicroBatch:
    """Lay samples behind each other, and padding behind them up to `rows`.

    Padding is a sample of its own: input `pad_id`, no targets, no frames. Only dense samples: no padding is added.
    """
    plans = [s.plan for s in samples]
    lengths = [p.num_rows for p in plans]
    padding = 0 if plans and all(p.dense is not None for p in plans) else rows - sum(lengths)
    cu_frames = np.cumsum([0, *(p.num_frames for p in plans)])
    begins = [np.full(n, f) for n, f in zip(lengths, cu_frames, strict=False)]
    ends = [f + _visible(p) for p, f in zip(plans, cu_frames, strict=False)]
    total = int(cu_frames[-1])
    if padding:
        lengths = [*lengths, padding]
        cu_frames = np.append(cu_frames, total)
        begins.append(np.full(padding, total))
        ends.append(np.full(padding, total))
    frames = [s.frames for s in samples if s.frames.shape[0]]
    empty = torch.zeros(0, 3, image_size, image_size, dtype=torch.uint8)
    return PackedMicroBatch(
        input_ids=_padded([p.rows.input_ids for p in plans], padding, pad_id),
        targets=_padded([p.rows.targets for p in plans], padding, IGNORE_INDEX),
        position_ids=torch.from_numpy(np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])),
        cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32)),
        cu_frames=torch.from_numpy(cu_frames.astype(np.int32)),
        frame_begin=torch.from_numpy(np.concatenate(begins).astype(np.int32)),
        frame_end=torch.from_numpy(np.concatenate(ends).astype(np.int32)),
        frame_positions=_padded([p.rows.frame_rows for p in plans], 0, 0),
        frames=torch.cat(frames) if frames else empty,
        aspect_ratio_ids=torch.ones(total, dtype=torch.int64),
        token_class=_padded([p.classes for p in plans], padding, 0).to(torch.int8),
        sample_keys=[s.key for s in samples] + [""] * bool(padding),
        dataset_index=[s.dataset_index for s in samples] + [-1] * bool(padding),
        dense_labels=_dense_labels(plans),
    )


def _visible(plan: SamplePlan) -> np.ndarray:  # type: ignore[type-arg]
    if plan.dense is not None:
        return np.zeros(plan.num_rows, dtype=np.int64)
    return plan.rows.visible_frames


def _padded(parts: Sequence[np.ndarray], padding: int, value: int) -> torch.Tensor:  # type: ignore[type-arg]
    tail = np.full(padding, value, dtype=np.int64)
    return torch.from_numpy(np.concatenate([*parts, tail]))


def _dense_labels(plans: Sequence[SamplePlan]) -> torch.Tensor | None:
    """int64 [F, grid, grid]; frames of samples without dense labels are ignored."""
    known = next((p.dense for p in plans if p.dense is not None), None)
    if known is None:
        return None
    grid = known.shape[1:]
    parts = [p.dense if p.dense is not None else np.full((p.num_frames, *grid), IGNORE_INDEX) for p in plans]
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))
