"""The products of a fused layer in fp8, without any state: each row of an operand has a scale of its own, taken of that row.

A scale is a power of two computed by the kernel that makes the row, so a row has the same bits whenever and beside whatever
rows it is computed again. Weight gradients sum over rows, which needs operands turned and of one scale: moving a number from one
power of two to a larger one keeps its bits, so gradients are turned from their fp8 rows, not from wider ones.

Bytes for each row of a layer of width D = 1280 and inner width 4 D, beside what products read and write, against bf16:

* forward: both norms and gelu write 1 byte a number and not 2 (-6 D); attention's output is read and written again (+3 D).
* backward: dqkv (+9 D), attention's output (+3 D) and the gradient of the sum behind attention (+3 D) are read and written
  again, the gradient of the sum behind the MLP is written (+1 D); gelu's gradient, gelu and norms again are 1 byte (-10 D).
* weight gradients: the four gradients, 9 D numbers, are turned from fp8 rows (+18 D). The four entries are made as columns at
  once, as the largest scale of their rows is kept of the forward pass; fc1's result is read a second time for that (+8 D).

Sum: +29 D, 37 KB a row and 60 MB a frame of 1,608 rows, 0.020 ms at 3.0 TB/s. A layer's products, 189.7 GFLOP a frame, take
0.27 ms in bf16 at 700 TFLOP/s and 0.16 at 1,200. Weight gradients in bf16 spare the turned copies, but the norms again, gelu
again and its gradient are written in both types (+20 D): 0.008 ms a frame less for memory, 0.04 more for products.
A scale for a whole tensor would need its largest value before the first number is written: another pass over every
operand, or a scale from the step before, which a second forward pass and a checkpoint would have to know.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from model.config import VideoMllamaConfig
from model.fp8 import check_tower_widths
from model.kernels.accumulate import main_grad
from model.vision.fused import rows, rows_fp8
from model.vision.fused.fp8_accumulate import add_scaled_product, scaled_product
from model.vision.fused.products import PLAIN, Gradients, deliver
from model.vision.fused.rows_fp8 import Rounded
from model.vision.fused.turn import Turned, columns, gelu_columns, largest, norm_columns, turn
from model.vision.layers import VisionLayer

WeightGradients = Literal["fp8", "bf16"]

FAST_FORWARD = True
FAST_INPUT_GRADIENT = True
FAST_WEIGHT_GRADIENT = False
"""Whether partial sums stay in the tensor core's 22-bit registers. Sums over a layer's widths may; sums over all rows may not."""


class Fp8Matrix(NamedTuple):
    """Weights in fp8, a scale for each row."""

    weight: Tensor
    """float8_e4m3fn [out, in]"""
    scale: Tensor
    """fp32 [out, 1]"""


class Fp8Products:
    """Products in float8_e4m3fn with a scale for each row; one instance serves any number of layers."""

    def __init__(self, weight_gradients: WeightGradients = "fp8") -> None:
        """Args:
        weight_gradients: the type whose numbers they are products of; sums are fp32 in both.
        """
        self.weight_gradients = weight_gradients
        self._plain = weight_gradients == "bf16"  # operands of the backward pass are operands of weight gradients too

    def norm(self, x: Tensor, weight: Tensor, shift: Tensor, eps: float) -> tuple[Rounded, Tensor, Tensor]:
        return rows_fp8.norm(x, weight, shift, eps)

    def norm_again(self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor) -> Rounded:
        return rows_fp8.norm_again(x, mean, rstd, weight, shift, plain=self._plain)

    def peak(self, x: Rounded) -> Tensor | None:
        return None if self._plain else largest(x.scale)

    def right(self, x: Tensor, peak: Tensor | None) -> Rounded | Turned:
        if self._plain or peak is None:
            return self.operand(x)
        return columns(x, peak)

    def norm_right(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, peak: Tensor | None, normed: Rounded | None
    ) -> Rounded | Turned:
        if not self._plain and peak is not None:  # not turned from `normed`: every level has to round alike
            return norm_columns(x, mean, rstd, weight, shift, peak)
        return self.norm_again(x, mean, rstd, weight, shift) if normed is None else normed

    def gelu_right(self, pre: Tensor, bias: Tensor | None, peak: Tensor | None) -> Rounded | Turned:
        if self._plain:
            a = rows.gelu(pre, bias)
            return rows_fp8.round_rows(a, plain=True)
        return rows_fp8.gelu(pre, bias) if peak is None else gelu_columns(pre, bias, peak)

    def add_norm(
        self, x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None, weight: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, Rounded, Tensor, Tensor]:
        if self._plain:
            total, normed, mean, rstd = rows.add_norm(x, y, bias, gate, weight, shift, eps)
            return total, rows_fp8.round_rows(normed, plain=True), mean, rstd
        return rows_fp8.add_norm(x, y, bias, gate, weight, shift, eps)

    def sum_product(self, total: Tensor, x: Rounded, matrix: Fp8Matrix, bias: Tensor | None) -> None:
        return None

    def gelu_product(self, x: Rounded, matrix: Fp8Matrix, bias: Tensor) -> None:
        return None

    def gelu_gradient(self, dy: Rounded, matrix: Fp8Matrix, gate: Tensor | None, pre: Tensor, bias: Tensor) -> None:
        return None

    def gelu(self, pre: Tensor, bias: Tensor | None) -> Rounded:
        return rows_fp8.gelu(pre, bias)

    def gelu_backward(
        self, da: Tensor, pre: Tensor, bias: Tensor | None, peak: Tensor | None
    ) -> tuple[Rounded, Rounded | Turned, Tensor | None]:
        if self._plain or peak is None:
            return rows_fp8.gelu_backward(da, pre, bias, plain=self._plain)
        dpre, dbias = rows_fp8.gelu_gradient(da, pre, bias)
        return dpre, gelu_columns(pre, bias, peak), dbias

    def operand(self, x: Tensor) -> Rounded:
        return rows_fp8.round_rows(x, plain=self._plain)  # plain is x itself, at no cost

    def gradient(self, dtotal: Tensor, bias: Tensor | None) -> tuple[Rounded, Tensor | None]:
        if bias is None:
            return rows_fp8.round_rows(dtotal, plain=self._plain), None
        return rows_fp8.round_rows_summed(dtotal, plain=self._plain)

    def matrix(self, *weights: Tensor) -> Fp8Matrix:
        joint = weights[0] if len(weights) == 1 else torch.cat(weights)
        rounded = rows_fp8.round_rows(joint)
        return Fp8Matrix(rounded.rows, rounded.scale)

    def product(self, x: Rounded, matrix: Fp8Matrix) -> Tensor:
        """bf16 [rows, out] of x [rows, in]."""
        return scaled_product(x.rows, x.scale, matrix.weight, matrix.scale.view(1, -1), torch.bfloat16, FAST_FORWARD)

    def input_gradient(self, dy: Rounded, matrix: Fp8Matrix, gate: Tensor | None = None) -> Tensor:
        """bf16 [rows, in] of dy [rows, out]."""
        turned, scale = turn(matrix.weight, matrix.scale)  # [in, out], [1]
        if gate is not None:
            scale = scale * gate
        scales = scale.float().expand(1, turned.shape[0]).contiguous()  # [1, in]
        return scaled_product(dy.rows, dy.scale, turned, scales, torch.bfloat16, FAST_INPUT_GRADIENT)

    def weight_gradient(
        self, dy: Rounded, x: Rounded | Turned, *weights: nn.Parameter, gate: Tensor | None = None
    ) -> tuple[Gradients, Tensor | None]:
        if self.weight_gradients == "bf16":
            assert isinstance(x, Rounded) and dy.plain is not None and x.plain is not None  # asked for when they were made
            return PLAIN.weight_gradient(dy.plain, x.plain, *weights, gate=gate)
        left = turn(dy.rows, dy.scale)  # [out, rows]
        right = x if isinstance(x, Turned) else turn(x.rows, x.scale)  # [in, rows]
        main = main_grad(weights[0])
        if main is not None and len(weights) == 1 and gate is None and weights[0].requires_grad:
            add_scaled_product(left, right, main, FAST_WEIGHT_GRADIENT)
            return (None,), None
        product = scaled_product(left.columns, left.scale, right.columns, right.scale, torch.float32, FAST_WEIGHT_GRADIENT)
        return deliver(product, weights, gate)


def use_fp8_products(encoder: nn.Module, config: VideoMllamaConfig, weight_gradients: WeightGradients = "fp8") -> None:
    """Gives every layer of the tower these products; they hold where it is applied as one node, see `levels.use_layers`.

    Raises:
        InputError: widths that fp8 products do not take.
    """
    check_tower_widths(config)
    products = Fp8Products(weight_gradients)
    for layer in encoder.modules():
        if isinstance(layer, VisionLayer):
            layer.products = products
