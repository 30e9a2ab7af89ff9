"""Rounding the matrices of a model that is loaded already."""

from __future__ import annotations

from inference.model.layers import CrossLayer
from inference.model.linear import DenseLinear
from inference.model.video_mllama import VideoMllama
from inference.quantize.linear import Fp8Linear
from inference.quantize.recipes import Recipe

_PARTS = {"self_attn": ("qkv", "out"), "mlp": ("gate_up", "down")}
"""Matrices of a layer, by part of a recipe."""


def quantize_model(model: VideoMllama, recipe: Recipe) -> VideoMllama:
    """Replace, one matrix after the other, those that the recipe names: at most one is held twice.

    The same bits as loading with the recipe: factors belong to rows, and matrices are joined along rows. What is in fp8 already
    stays.

    Args:
        model: changed in place.
        recipe: which matrices.

    Returns:
        The model.
    """
    for layer in model.layers:
        parts = recipe.cross_layers if isinstance(layer, CrossLayer) else recipe.self_layers
        for part in sorted(parts):
            for name in _PARTS[part]:
                found = getattr(layer, name)
                if isinstance(found, DenseLinear):
                    setattr(layer, name, Fp8Linear.of(found.weight))
                del found
    return model


def round_as_on_gpu(model: VideoMllama) -> None:
    """From now on the rows of prompts are rounded too where a GPU would round them, on any device."""
    for layer in model.layers:
        for name in (name for names in _PARTS.values() for name in names):
            found = getattr(layer, name, None)
            if isinstance(found, Fp8Linear):
                found.as_on_gpu = True


def decoder_bytes(model: VideoMllama) -> int:
    """Bytes of the decoder's matrices that one decoding step reads: all but the embedding and the projections of frames."""
    total = model.head.num_bytes
    for layer in model.layers:
        first = layer.query if isinstance(layer, CrossLayer) else layer.qkv
        total += sum(matrix.num_bytes for matrix in (first, layer.out, layer.gate_up, layer.down))
    return total
