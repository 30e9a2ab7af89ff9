"""Weights and cached values in fp8: rounding row by row, products with such weights, and which matrices take that form.

`inference.quantize.effect` measures what it does to a checkpoint's outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference.quantize.linear import Fp8Linear
from inference.quantize.recipes import PRECISIONS, Recipe, recipe_of
from inference.quantize.rows import dequantize_rows, quantize_rows

if TYPE_CHECKING:
    from inference.quantize.model import quantize_model as quantize_model

__all__ = ["PRECISIONS", "Fp8Linear", "Recipe", "dequantize_rows", "quantize_model", "quantize_rows", "recipe_of"]


def __getattr__(name: str) -> Any:
    if name == "quantize_model":  # the model's layers import this package
        from inference.quantize.model import quantize_model

        return quantize_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
