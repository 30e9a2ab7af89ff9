"""Rounding the matrices of a model that is loaded already."""

from __future__ import annotations

from inference.model.layers import CrossLayer
from inference.model.linear import DenseLinear
from inference.model.video_mllama import VideoMllama
from inference.quantize.linear import Fp8Linear
from inference.quantize.recipes import Recipe

_PARTS = {"self_attn": ("qkv", "out"), "mlp": ("gate_up", "down")}
"""Matrices of a layer, by part of a recipe."""


def quantize_model(model: VideoMllama, recipe: Recipe, *, as_on_gpu: bool = False) -> VideoMllama:
    """Replace, one matrix after the other, those that the recipe names: at most one is held twice.

    The same bits as loading with the recipe: factors belong to rows, and matrices are joined along rows. What is in fp8 already
    stays.

    Args:
        model: changed in place.
        as_on_gpu: see `Fp8Linear`.

    Returns:
        The model.
    """
    for layer in model.layers:
        parts = recipe.cross_layers if isinstance(layer, CrossLayer) else recipe.self_layers
        for part in sorted(parts):
            for name in _PARTS[part]:
                found = getattr(layer, name)
                if isinstance(found, Fp8Linear):
                    found.as_on_gpu = as_on_gpu
                elif isinstance(found, DenseLinear):
                    setattr(layer, name, Fp8Linear.of(found.weight, as_on_gpu=as_on_gpu))
                del found
    return model


def decoder_bytes(model: VideoMllama) -> int:
    """Bytes of the decoder's matrices that one decoding step reads: all but the embedding and the projections of frames."""
    total = model.head.num_bytes
    for layer in model.layers:
        first = layer.query if isinstance(layer, CrossLayer) else layer.qkv
        total += sum(matrix.num_bytes for matrix in (first, layer.out, layer.gate_up, layer.down))
    return total
