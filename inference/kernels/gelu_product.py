"""The first half of the tower's MLP in one kernel: a product whose gelu is taken before the result is written."""

from __future__ import annotations

import warnings
from functools import cache, lru_cache
from types import ModuleType

import torch
import torch.nn.functional as F

from inference.kernels.vision_rows import gelu_rows
from model.kernels.select import Form, choose_form, multiprocessors

COPY_ENGINE = (9, 0)
"""Compute capability of the engine that moves tiles (Hopper)."""
_HOPPER = 9
"""The major capability that has the matrix instructions of four warps; later ones have others."""

_TYPES = (torch.bfloat16, torch.float16)
LEAST_ROWS = 12_864
"""Eight frames of 560 pixels. Below, gelu stays behind the product: inside it was measured at 51,456 rows only."""

_TRIAL_ERROR = 0.05
"""Of the small problem: two roundings to bf16 of numbers up to 5."""


@lru_cache(maxsize=1)
def _overlapped() -> ModuleType | None:
    """The form that takes gelu of one tile while it multiplies the next, where this version of Triton has Gluon."""
    try:
        from inference.kernels.triton_forms import overlapped_gelu_product
    except (ImportError, AttributeError):
        return None
    return overlapped_gelu_product


def _triton_form(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    units = multiprocessors(x.device)
    hopper = x.is_meta or (x.is_cuda and torch.cuda.get_device_capability(x.device)[0] == _HOPPER)
    overlapped = _overlapped() if hopper else None
    if overlapped is not None and overlapped.can_overlap(x):
        out: torch.Tensor = overlapped.overlapped_gelu_product(x, weight, bias, units)
        return out
    from inference.kernels.triton_forms.gelu_product import gelu_product as launch

    return launch(x, weight, bias, units)


def gelu_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, form: Form | None = None) -> torch.Tensor:
    """gelu(x W^T + b), the exact (erf) gelu of the product rounded to the dtype of x, rounded again.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out].
        form: overrides the choice by device and number of rows. The Triton form takes 16-bit types and widths that are
            multiples of 8.

    Returns:
        [..., out].
    """
    fits = x.dtype in _TYPES and x.shape[-1] % 8 == 0 and weight.shape[0] % 8 == 0
    if form is None and (not fits or (x.is_cuda and torch.cuda.get_device_capability(x.device) < COPY_ENGINE)):
        form = "torch"
    if choose_form(x.device, form) != "triton":
        return F.gelu(F.linear(x, weight, bias))
    if form is None and x.numel() < LEAST_ROWS * x.shape[-1]:
        return gelu_rows(F.linear(x, weight, bias), None, False)[0]
    return _triton_form(x.contiguous(), weight.contiguous(), bias)


@cache
def gains(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether gelu inside the product is the faster way: on Hopper in bf16, where a small problem comes out right."""
    if device.type != "cuda" or dtype != torch.bfloat16 or torch.cuda.get_device_capability(device)[0] != _HOPPER:
        return False
    numbers = torch.randn(300 + 512 + 1, 256, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    x, weight, bias = numbers[:300], numbers[300:812] / 16, numbers[812].repeat(2)
    try:
        apart = float((gelu_product(x, weight, bias, form="triton") - F.gelu(F.linear(x, weight, bias))).abs().max())
        problem = "" if apart <= _TRIAL_ERROR else f"its numbers are off by {apart:.3g}"
    except Exception as error:  # another version of Triton may not compile it
        problem = f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
    if problem:
        warnings.warn(f"gelu inside the product does not work here ({problem}); it is taken behind it", stacklevel=2)
    return not problem


@torch.library.custom_op("moss_inference::gelu_product", mutates_args=())
def traced_gelu_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`gelu_product` as one node of a traced graph."""
    return gelu_product(x, weight, bias)


@traced_gelu_product.register_fake
def _shape(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])
