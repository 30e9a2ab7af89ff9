"""The rows of micro-batches as bytes: what a replica's reading rank hands to the others."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from data_pipeline.packing.batch import PackedMicroBatch

_STAYS = ("frames", "dense_labels")
"""What belongs to pixels: it goes only to the rank that encodes a frame."""


def pack_rows(batches: Sequence[PackedMicroBatch]) -> bytes:
    """Everything of the micro-batches but pixels and their labels."""
    return pickle.dumps([_plain(batch) for batch in batches], protocol=pickle.HIGHEST_PROTOCOL)


def unpack_rows(content: torch.Tensor) -> list[PackedMicroBatch]:
    """Micro-batches without pixels from uint8 [bytes]: `frames` has the right shape, and no storage."""
    return [_batch(values) for values in pickle.loads(content.numpy().tobytes())]


def without_pixels(batch: PackedMicroBatch) -> PackedMicroBatch:
    """As another rank of the replica gets it."""
    return dataclasses.replace(batch, frames=_no_pixels(batch.frames.shape), dense_labels=None)


def _plain(batch: PackedMicroBatch) -> dict[str, Any]:
    """Arrays instead of tensors, whose pickles are slow; of the pixels the shape."""
    values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch) if f.name not in _STAYS}
    plain = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in values.items()}
    return plain | {"frames": tuple(batch.frames.shape)}


def _batch(values: dict[str, Any]) -> PackedMicroBatch:
    shape = values.pop("frames")
    rows: dict[str, Any] = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in values.items()
    }
    return PackedMicroBatch(frames=_no_pixels(shape), **rows)


def _no_pixels(shape: Sequence[int]) -> torch.Tensor:
    return torch.zeros((), dtype=torch.uint8).expand(*shape)
