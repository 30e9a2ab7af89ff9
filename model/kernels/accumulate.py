"""Gradients of weights added straight into `main_grad`, the buffer in which megatron-core's DDP holds them.

Autograd then sees no gradient of the weight, and the hook of that DDP adds nothing: a pass over the gradient less.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

_TYPES = (torch.bfloat16, torch.float16)
_TRIAL_ERROR = 0.05


def main_grad(parameter: Tensor) -> Tensor | None:
    """The buffer of a parameter's gradient, if DDP gave it one."""
    found: Tensor | None = getattr(parameter, "main_grad", None)
    return found


def transposed_product(dy: Tensor, x: Tensor, wide: bool) -> Tensor:
    """dy [rows, out], x [rows, in] -> dy^T x [out, in], in fp32 if `wide` and they are narrower."""
    if not wide or dy.dtype not in _TYPES:
        return torch.mm(dy.t(), x)
    if dy.is_cuda:
        return torch.mm(dy.t(), x, out_dtype=torch.float32)
    return torch.mm(dy.t().float(), x.float())


def add_product(dy: Tensor, x: Tensor, main: Tensor) -> None:
    """main += dy^T x.

    Args:
        dy: [rows, out].
        x: [rows, in].
        main: [out, in].
    """
    _adding(main.device, dy.dtype, main.dtype)(dy, x, main)


def _engine_adds(dy: Tensor, x: Tensor, main: Tensor) -> None:
    from transformer_engine.pytorch.cpp_extensions import general_gemm  # type: ignore[import-not-found, unused-ignore]

    general_gemm(x, dy, out_dtype=main.dtype, accumulate=True, layout="NT", out=main, grad=True)


def _torch_adds(dy: Tensor, x: Tensor, main: Tensor) -> None:
    if main.dtype == dy.dtype:
        main.addmm_(dy.t(), x)
    else:
        main.add_(transposed_product(dy, x, wide=True))


@cache
def _adding(device: torch.device, dtype: torch.dtype, main: torch.dtype) -> Callable[[Tensor, Tensor, Tensor], None]:
    """How it is added: by Transformer Engine, whose product accumulates, where a small problem comes out right."""
    if device.type != "cuda" or dtype not in _TYPES:
        return _torch_adds
    numbers = torch.randn(64, 96, generator=torch.Generator().manual_seed(0), device="cpu").to(device, dtype)
    dy, x = numbers[:, :32].contiguous(), numbers[:, 32:].contiguous()
    found = torch.ones(32, 64, dtype=main, device=device)
    try:
        _engine_adds(dy, x, found)
        apart = float((found.float() - 1 - dy.float().t() @ x.float()).abs().max())
        problem = "" if apart <= _TRIAL_ERROR * (1 if main == torch.float32 else 8) else f"its numbers are off by {apart:.3g}"
    except ImportError:
        return _torch_adds
    except Exception as error:  # another version may have other arguments
        problem = f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
    if not problem:
        return _engine_adds
    warnings.warn(f"Transformer Engine's accumulating product does not work here ({problem}); torch multiplies", stacklevel=2)
    return _torch_adds
