"""What must come out the same twice: a frame encoded again, a layer computed again, a model read from a checkpoint."""

from __future__ import annotations

import dataclasses
import tempfile
from typing import Any

import torch
from torch import Tensor

from model.conversion import load_hf_weights
from model.rows import PackedRows
from moss_train.checkpoint.load import load_model_weights
from moss_train.checkpoint.save import save_model_only
from moss_train.frames.owned import OwnedFrames
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout
from moss_train.verify.engine.curves import Training
from moss_train.verify.engine.distances import distance
from moss_train.verify.engine.subject import (
    ALL_FP8,
    CURRENT,
    DELAYED,
    DELAYED_ALL,
    ENGINE,
    Variant,
    build,
    check_config,
    learnable_pack,
    lively_weights,
)

SAMPLES = ((144, 5), (80, 6), (32, 0))


def measure(layout: ParallelLayout) -> dict[str, Any]:
    """Distances that should be 0, gradients up to the order of summation, by what is repeated."""
    return {
        "tower encoded again, fp8": _encoded_again(layout, "all"),
        "tower with attention outputs kept, fp8": _encoded_again(layout, "attention"),
        "gradients with full recompute": {v.name: _recompute(v, layout) for v in (ENGINE, DELAYED, CURRENT, ALL_FP8)},
        "losses after a checkpoint": {v.name: _checkpoint(v, layout) for v in (ENGINE, DELAYED, DELAYED_ALL)},
    }


def _encoded_again(layout: ParallelLayout, keep_mode: str) -> dict[str, float]:
    """Tower gradients where every frame keeps its state, and where none does or less is kept."""
    config = check_config()
    pack = learnable_pack(config, 5, SAMPLES)
    frames, ids = pack.frames.to(layout.device), pack.aspect_ratio_ids.to(layout.device)
    found: list[tuple[Tensor, list[Tensor]]] = []
    kept = -1 if keep_mode == "attention" else 0
    for keep, mode in ((-1, "all"), (kept, keep_mode)):
        models = build(config, ALL_FP8, layout)
        load_hf_weights(models.chunks, models.vision, lively_weights(config))
        settings = EncodeSettings(keep_frames=keep, keep_mode=mode, chunk=4, again_chunk=4)
        owned = OwnedFrames(models.vision, frames, ids, "tower", keep, settings)
        features = owned.features
        assert features is not None
        features = features.clone()
        weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(9)).to(features)
        owned.backward(weight)
        found.append((features, [torch.zeros_like(p) if p.grad is None else p.grad for p in models.vision.parameters()]))
    return {
        "features": float((found[0][0] - found[1][0]).abs().max()),
        "gradients": max(distance(b, a) for a, b in zip(found[0][1], found[1][1], strict=True)),
    }


def _recompute(variant: Variant, layout: ParallelLayout) -> float:
    """Largest distance of a parameter's gradient with full recompute from without."""
    config = check_config()
    rows = PackedRows.of(learnable_pack(config, 5, SAMPLES), layout.device)
    gradients: list[list[Tensor]] = []
    for recompute in ("none", "full"):
        models = build(config, dataclasses.replace(variant, recompute=recompute), layout)
        load_hf_weights(models.chunks, models.vision, lively_weights(config))
        decoder: Any = models.chunks[0]
        states = torch.randn(rows.num_frames, *models.state_shape, generator=torch.Generator().manual_seed(2))
        for _ in range(2):  # delayed scaling has a history only from the second pass on
            decoder.zero_grad()
            decoder(rows, states.to(layout.device, models.dtype).requires_grad_()).sum().backward()
        gradients.append([p.grad for p in decoder.parameters() if p.grad is not None])
    return max(distance(a, b) for a, b in zip(*reversed(gradients), strict=True))


def _checkpoint(variant: Variant, layout: ParallelLayout) -> float:
    """Losses of a trained model read from its checkpoint, from those of the model itself."""
    config = check_config()
    training = Training(config, variant, layout, 5)
    for index in range(5):
        training.update(index)
    fresh = build(config, variant, layout)
    rows = PackedRows.of(learnable_pack(config, 5, SAMPLES), layout.device)
    states = torch.randn(rows.num_frames, *fresh.state_shape, generator=torch.Generator().manual_seed(2))
    states = states.to(layout.device, fresh.dtype)
    with tempfile.TemporaryDirectory() as folder:
        save_model_only(folder, training.models.chunks, training.models.vision, config)
        load_model_weights(folder, fresh.chunks, fresh.vision)
    with torch.no_grad():
        for chunk in training.models.chunks:
            chunk.set_is_first_microbatch()
        before, after = (models.chunks[0](rows, states) for models in (training.models, fresh))
    return distance(after, before)
