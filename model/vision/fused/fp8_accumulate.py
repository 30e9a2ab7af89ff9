"""Products of fp8 numbers, also added straight into `main_grad`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from model.vision.fused.scales import round_rows
from model.vision.fused.turn import Turned

_TRIAL_ERROR = 1e-3


def scaled_product(a: Tensor, scale_a: Tensor, b: Tensor, scale_b: Tensor, dtype: torch.dtype, fast: bool) -> Tensor:
    """a b^T of fp8 numbers, summed in fp32 and scaled. On a CPU the same numbers are multiplied in fp32.

    Args:
        a: fp8 [m, k], contiguous.
        scale_a: fp32 [m, 1], or [1].
        b: fp8 [n, k], contiguous.
        scale_b: fp32 [1, n], or [1] where scale_a is.
        dtype: of the result [m, n].
        fast: sums may stay in the tensor core's registers, which have 22 bits.
    """
    if not a.numel():
        return torch.zeros((a.shape[0], b.shape[0]), dtype=dtype, device=a.device)
    if a.is_cuda:
        return torch._scaled_mm(a, b.t(), scale_a, scale_b, out_dtype=dtype, use_fast_accum=fast)
    return (torch.mm(a.float(), b.float().t()) * scale_a * scale_b).to(dtype)


def add_scaled_product(a: Turned, b: Turned, main: Tensor, fast: bool) -> None:
    """main [m, n] += a b^T of fp8 columns [m, k] and [n, k]."""
    if a.columns.numel():
        _adding(main.device, main.dtype)(a, b, main, fast)


def _torch_adds(a: Turned, b: Turned, main: Tensor, fast: bool) -> None:
    main.add_(scaled_product(a.columns, a.scale, b.columns, b.scale, torch.float32, fast))


def _engine_adds(a: Turned, b: Turned, main: Tensor, fast: bool) -> None:
    import transformer_engine_torch as tex  # type: ignore[import-not-found, unused-ignore]
    from transformer_engine.pytorch.cpp_extensions import general_gemm  # type: ignore[import-not-found, unused-ignore]
    from transformer_engine.pytorch.tensor.storage.float8_tensor_storage import (  # type: ignore[import-not-found, unused-ignore]
        Float8TensorStorage,
    )

    left, right = (
        Float8TensorStorage(
            data=t.columns.view(torch.uint8), fp8_scale_inv=t.scale, fp8_dtype=tex.DType.kFloat8E4M3, data_transpose=None,
            quantizer=None,
        )
        for t in (a, b)
    )  # fmt: skip
    # Its first operand is the transposed one, as column-major products have it.
    general_gemm(
        right, left, out_dtype=main.dtype, accumulate=True, layout="TN", out=main, use_split_accumulator=not fast, grad=True
    )


@cache
def _adding(device: torch.device, main: torch.dtype) -> Callable[[Turned, Turned, Tensor, bool], None]:
    """How it is added: by Transformer Engine, whose product accumulates, where a small problem comes out right."""
    if device.type != "cuda":
        return _torch_adds
    numbers = torch.randn(96, 128, generator=torch.Generator().manual_seed(0), device="cpu").to(device)
    values, scale = round_rows(numbers.view(1, -1))
    a, b = (Turned(part.contiguous(), scale.view(1)) for part in values.view(96, 128).split([32, 64]))
    found, expected = torch.ones(32, 64, dtype=main, device=device), torch.ones(32, 64, dtype=main, device=device)
    _torch_adds(a, b, expected, False)
    try:
        _engine_adds(a, b, found, False)
        apart = float((found.float() - expected.float()).abs().max() / expected.float().abs().max())
        problem = "" if apart <= max(_TRIAL_ERROR, torch.finfo(main).eps) else f"its numbers are off by {apart:.3g}"
    except ImportError:
        return _torch_adds
    except Exception as error:  # another version may have other arguments
        problem = f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
    if not problem:
        return _engine_adds
    warnings.warn(f"Transformer Engine's accumulating fp8 product does not work here ({problem}); torch multiplies", stacklevel=2)
    return _torch_adds
