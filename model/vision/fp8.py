"""The tower's products in fp8: those of fused layers, or of Transformer Engine's linear layers."""

from __future__ import annotations

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.vision.encoder import VisionEncoder
from model.vision.fused.levels import all_fused

WAYS = ("none", "rows", "rows_bf16", "linears")


def use_fp8(encoder: VisionEncoder, config: VideoMllamaConfig, way: str) -> None:
    """Lets the tower multiply in fp8; patch embedding and projector stay. Before freezing and wrapping, on its device.

    Args:
        encoder: whose layers are applied as `levels.use_layers` has set.
        config: its dimensions.
        way: none | rows | rows_bf16 | linears. Rows: in fused layers, a scale for each row; with bf16, weight gradients are
            products in bf16. Linears: Transformer Engine's linear layers with current scaling, operator by operator.

    Raises:
        InputError: an unknown way, widths that fp8 products do not take, or rows where a layer cannot be fused.
    """
    if way not in WAYS:
        raise InputError(f"fp8_vision is {way!r}; use one of {', '.join(WAYS)}")
    if way == "linears":
        from model.vision.fp8_linears import use_fp8_linears

        use_fp8_linears(encoder, config)
    elif way != "none":
        from model.vision.fused.fp8_products import use_fp8_products

        if not all_fused(encoder):  # its layers would compute in the dtype of their weights, and nobody would know
            raise InputError(
                "precision.fp8_vision is on, but the tower's layers are not fused here: on CUDA in 16 bits they are, with "
                "vision.layers=auto and a library that has attention for their heads; use vision.layers=torch or fp8_vision=false"
            )
        use_fp8_products(encoder, config, "fp8" if way == "rows" else "bf16")
