"""Products with a weight in fp8."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from inference.kernels.gates import silu_and_multiply
from inference.kernels.skinny import MAX_ROWS, skinny_linear, skinny_swiglu
from inference.quantize.rows import FP8, dequantize_rows, quantize_rows
from model.errors import InputError

_MULTIPLE = 16
"""Widths of the tensor cores' fp8 product."""


class Fp8Linear:
    """A weight in float8_e4m3fn with one fp32 factor for each output row.

    On a GPU, up to 16 rows multiply with the weight as it stands (the rows are not rounded); more rows are rounded to fp8 one by
    one for the tensor cores' product, where the dtype is bf16. Elsewhere the weight is widened for the product.

    Args:
        weight: float8_e4m3fn [out, in].
        factor: fp32 [out].
        as_on_gpu: on a CPU, round more than 16 rows as a GPU does, to see what that does.

    Raises:
        InputError: another dtype or other shapes.
    """

    def __init__(self, weight: torch.Tensor, factor: torch.Tensor, *, as_on_gpu: bool = False) -> None:
        if weight.dtype != FP8 or weight.ndim != 2 or factor.dtype != torch.float32 or factor.shape != weight.shape[:1]:
            raise InputError(
                f"an fp8 weight has {weight.dtype} {list(weight.shape)} with factors {factor.dtype} {list(factor.shape)}; "
                "give float8_e4m3fn [out, in] and float32 [out]"
            )
        self.weight, self.factor, self.as_on_gpu = weight.contiguous(), factor.contiguous(), as_on_gpu

    @classmethod
    def of(cls, weight: torch.Tensor, *, as_on_gpu: bool = False) -> Fp8Linear:
        """From a weight [out, in] of any floating dtype."""
        return cls(*quantize_rows(weight), as_on_gpu=as_on_gpu)

    @property
    def num_bytes(self) -> int:
        """One for each element and four for each output row."""
        return self.weight.numel() + 4 * self.factor.numel()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of `x`."""
        rows = x.reshape(-1, x.shape[-1])
        return self._multiply(rows).view(*x.shape[:-1], -1)

    def swiglu(self, x: torch.Tensor) -> torch.Tensor:
        """silu of the first half of the product times the second: [..., in] -> [..., out / 2]."""
        if x.numel() <= MAX_ROWS * x.shape[-1]:
            return skinny_swiglu(x, self.weight, self.factor)
        return silu_and_multiply(self(x))

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """[out, in], widened."""
        return dequantize_rows(self.weight, self.factor, dtype)

    def _multiply(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.shape[0] <= MAX_ROWS:
            return skinny_linear(rows, self.weight, self.factor)
        if rows.is_cuda and rows.dtype == torch.bfloat16 and not any(n % _MULTIPLE for n in self.weight.shape):
            quantised, factor = quantize_rows(rows)
            product: torch.Tensor = torch._scaled_mm(
                quantised,
                self.weight.t(),
                scale_a=factor[:, None],
                scale_b=self.factor[None],
                out_dtype=rows.dtype,
                use_fast_accum=True,
            )
            return product
        if self.as_on_gpu:
            rows = dequantize_rows(*quantize_rows(rows), rows.dtype)
        return F.linear(rows, self.dense(rows.dtype))
