"""A replayed step as files: tensors, pictures, numbers, a page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from PIL import Image

from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.feed.digest import ROW_FIELDS
from moss_train.replay.losses import TokenLosses
from moss_train.replay.page import write_page
from moss_train.replay.run import ReplayedStep
from moss_train.replay.views import StepView, as_json

SHEET_SIDE = 160
"""Pixels of a frame on the contact sheet."""


def write_files(out: Path, found: ReplayedStep, view: StepView, losses: TokenLosses | None = None) -> list[Path]:
    """Write everything about a step into a folder.

    `index.html` to look at, `replay.json`, and of each micro-batch `micro_batch_000.safetensors` (all tensors, and `losses` where
    a model was run), `micro_batch_000/frame_000.png` and the contact sheet `micro_batch_000.png`.

    Returns:
        What a user opens, the page first.

    Raises:
        OSError: the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    for number, batch in found.batches.items():
        name = f"micro_batch_{number:03d}"
        _write_tensors(out / f"{name}.safetensors", batch, None if losses is None else losses.rows[number])
        if batch.num_frames:
            _write_frames(out / name, out / f"{name}.png", batch.frames)
    (out / "replay.json").write_text(json.dumps(as_json(view), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write_page(out / "index.html", view, {number: batch.frames for number, batch in found.batches.items()})
    return [out / "index.html", out / "replay.json"]


def _write_tensors(path: Path, batch: PackedMicroBatch, losses: torch.Tensor | None) -> None:
    from safetensors.torch import save_file

    tensors = {name: getattr(batch, name) for name in (*ROW_FIELDS, "frames") if getattr(batch, name) is not None}
    if losses is not None:
        tensors["losses"] = losses
    names = {"sample_keys": json.dumps(batch.sample_keys, ensure_ascii=False), "dataset_index": json.dumps(batch.dataset_index)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path), metadata=names)


def _write_frames(folder: Path, sheet: Path, frames: torch.Tensor) -> None:
    """frames: uint8 [F, 3, size, size]"""
    folder.mkdir(exist_ok=True)
    columns = math.ceil(math.sqrt(frames.shape[0]))
    page = Image.new("RGB", (columns * SHEET_SIDE, math.ceil(frames.shape[0] / columns) * SHEET_SIDE))
    for number, pixels in enumerate(frames):
        picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        picture.save(folder / f"frame_{number:03d}.png")
        small = picture.resize((SHEET_SIDE, SHEET_SIDE), Image.Resampling.BILINEAR)
        page.paste(small, (number % columns * SHEET_SIDE, number // columns * SHEET_SIDE))
    page.save(sheet)
