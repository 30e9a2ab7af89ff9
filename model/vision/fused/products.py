"""The matrix products of a fused layer, and the row functions that make their operands.

A layer knows neither dtype nor scales: what goes into a product is an operand, made by the row function in front of it. Gradients
of weights are added straight into `main_grad` where the parameter has one, the fp32 buffer of megatron-core's DDP; autograd
then sees no gradient of it, and the hook of that DDP adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.kernels.accumulate import add_product, main_grad
from model.kernels.accumulate import transposed_product as transposed_product
from model.vision.fused import joined, rows

Operand = Any
"""What enters a product; only the products that made it look inside."""
Right = Any
"""What the gradient of a weight is a product of with the gradient of a result: the product's entry, in its own form."""
Matrix = Any
"""One or several weights as the right side of a product."""
Gradients = tuple[Tensor | None, ...]


class Products(Protocol):
    """Products y = x W^T of a layer. Rows are [rows, width]; row functions as in `model.vision.fused.rows`."""

    def norm(self, x: Tensor, weight: Tensor, shift: Tensor, eps: float) -> tuple[Operand, Tensor, Tensor]:
        """LayerNorm as an operand, with mean and 1 / deviation of every row."""

    def norm_again(self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor) -> Operand:
        """The same operand, from the statistics."""

    def peak(self, x: Operand) -> Tensor | None:
        """What the backward pass has to know of an operand to make its right side at once [1]; None: nothing."""

    def right(self, x: Tensor, peak: Tensor | None) -> Right:
        """The right side that is `operand`."""

    def norm_right(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, peak: Tensor | None, normed: Operand | None
    ) -> Right:
        """The right side that is `norm`; `normed`: that operand, if it is there."""

    def gelu_right(self, pre: Tensor, bias: Tensor | None, peak: Tensor | None) -> Right:
        """The right side that is `gelu`."""

    def add_norm(
        self, x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None, weight: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, Operand, Tensor, Tensor]:
        """A product onto the state: the sum, its norm as an operand, and the norm's statistics."""

    def sum_product(self, total: Tensor, x: Operand, matrix: Matrix, bias: Tensor | None) -> Tensor | None:
        """total + x W^T + bias [rows, out] by one kernel; None where that is not how it is computed."""

    def gelu_product(self, x: Operand, matrix: Matrix, bias: Tensor) -> Operand | None:
        """The gelu of x W^T + bias by one kernel; None as above."""

    def gelu_gradient(
        self, dy: Operand, matrix: Matrix, gate: Tensor | None, pre: Tensor, bias: Tensor
    ) -> tuple[Operand, Right, Tensor] | None:
        """`gelu_backward` of `input_gradient` by one kernel; None as above."""

    def gelu(self, pre: Tensor, bias: Tensor | None) -> Operand:
        """The gelu of pre + bias."""

    def gelu_backward(
        self, da: Tensor, pre: Tensor, bias: Tensor | None, peak: Tensor | None
    ) -> tuple[Operand, Right, Tensor | None]:
        """Gradient of pre, the gelu again, gradient of the bias."""

    def operand(self, x: Tensor) -> Operand:
        """Rows that no row function made: attention's output, its gradient, a gradient of the state."""

    def gradient(self, dtotal: Tensor, bias: Tensor | None) -> tuple[Operand, Tensor | None]:
        """The gradient of a product that was added to the state, and the sums of its columns if there is a bias [width]."""

    def matrix(self, *weights: Tensor) -> Matrix:
        """Weights [out, in] below each other."""

    def product(self, x: Operand, matrix: Matrix) -> Tensor:
        """[rows, in] -> [rows, out]."""

    def input_gradient(self, dy: Operand, matrix: Matrix, gate: Tensor | None = None) -> Tensor:
        """[rows, out] -> [rows, in], times the gate [1]."""

    def weight_gradient(
        self, dy: Operand, x: Right, *weights: nn.Parameter, gate: Tensor | None = None
    ) -> tuple[Gradients, Tensor | None]:
        """dy^T x, times the gate: see `deliver`."""


def deliver(product: Tensor, weights: Sequence[nn.Parameter], gate: Tensor | None = None) -> tuple[Gradients, Tensor | None]:
    """Hands out the gradient of weights that were one matrix.

    Args:
        product: dy^T x [sum of out, in], without the gate.
        weights: [out, in] each.
        gate: [1], the factor of the layer's product, if it has one.

    Returns:
        A gradient for each weight: None where it does not train or its `main_grad` took it. And the gradient of the gate,
        fp32 [1]: with y = gate * (x W^T) it is the sum of product * W, whatever dy and x were.
    """
    parts = product.split([weight.shape[0] for weight in weights])
    mains = [main_grad(weight) for weight in weights]
    trained = [(w, main, part) for w, main, part in zip(weights, mains, parts, strict=True) if w.requires_grad]
    taken = [(main, part) for _, main, part in trained if main is not None]
    if taken and gate is None:
        torch._foreach_add_([buffer for buffer, _ in taken], [part for _, part in taken])
    elif gate is not None:
        for buffer, part in taken:
            buffer.addcmul_(part.to(buffer.dtype), gate.to(buffer.dtype))
    gradients: list[Tensor | None] = []
    for weight, main, part in zip(weights, mains, parts, strict=True):
        wanted = weight.requires_grad and main is None
        gradients.append((part if gate is None else part * gate).to(weight.dtype) if wanted else None)
    if gate is None:
        return tuple(gradients), None
    dgate = torch.stack([(part * weight.detach()).sum() for weight, part in zip(weights, parts, strict=True)]).sum()
    return tuple(gradients), dgate.view(1)


def deliver_small(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> Gradients:
    """As `deliver`, for gradients of vectors and scalars that are there already; None stays None. One launch for all buffers."""
    taken: list[tuple[Tensor, Tensor]] = []
    left: list[Tensor | None] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        main = main_grad(parameter)
        if gradient is None or not parameter.requires_grad:
            left.append(None)
        elif main is not None:
            taken.append((main, gradient.view_as(parameter)))
            left.append(None)
        else:
            left.append(gradient.view_as(parameter).to(parameter.dtype))
    if taken:
        torch._foreach_add_([main for main, _ in taken], [gradient for _, gradient in taken])
    return tuple(left)


class PlainProducts:
    """Products in the dtype of the weights."""

    def norm(self, x: Tensor, weight: Tensor, shift: Tensor, eps: float) -> tuple[Operand, Tensor, Tensor]:
        return rows.norm(x, weight, shift, eps)

    def norm_again(self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor) -> Operand:
        return rows.norm_again(x, mean, rstd, weight, shift)

    def peak(self, x: Operand) -> Tensor | None:
        return None

    def right(self, x: Tensor, peak: Tensor | None) -> Right:
        return x

    def norm_right(
        self, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, peak: Tensor | None, normed: Operand | None
    ) -> Right:
        return rows.norm_again(x, mean, rstd, weight, shift) if normed is None else normed

    def gelu_right(self, pre: Tensor, bias: Tensor | None, peak: Tensor | None) -> Right:
        return rows.gelu(pre, bias)

    def add_norm(
        self, x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None, weight: Tensor, shift: Tensor, eps: float
    ) -> tuple[Tensor, Operand, Tensor, Tensor]:
        return rows.add_norm(x, y, bias, gate, weight, shift, eps)

    def sum_product(self, total: Tensor, x: Operand, matrix: Matrix, bias: Tensor | None) -> Tensor | None:
        form = joined.choose("sum", total)
        return None if form is None else form(x, matrix, total, bias)

    def gelu_product(self, x: Operand, matrix: Matrix, bias: Tensor) -> Operand | None:
        form = joined.choose("gelu", x)
        return None if form is None else form(x, matrix, bias)

    def gelu_gradient(
        self, dy: Operand, matrix: Matrix, gate: Tensor | None, pre: Tensor, bias: Tensor
    ) -> tuple[Operand, Right, Tensor] | None:
        form = joined.choose("gradient", dy)
        return None if form is None else form(dy, matrix if gate is None else matrix * gate, pre, bias)

    def gelu(self, pre: Tensor, bias: Tensor | None) -> Operand:
        return rows.gelu(pre, bias)

    def gelu_backward(
        self, da: Tensor, pre: Tensor, bias: Tensor | None, peak: Tensor | None
    ) -> tuple[Operand, Right, Tensor | None]:
        return rows.gelu_backward(da, pre, bias)

    def operand(self, x: Tensor) -> Operand:
        return x

    def gradient(self, dtotal: Tensor, bias: Tensor | None) -> tuple[Operand, Tensor | None]:
        return dtotal, None if bias is None else rows.column_sums(dtotal)

    def matrix(self, *weights: Tensor) -> Matrix:
        return weights[0] if len(weights) == 1 else torch.cat(weights)

    def product(self, x: Operand, matrix: Matrix) -> Tensor:
        return torch.mm(x, matrix.t())

    def input_gradient(self, dy: Operand, matrix: Matrix, gate: Tensor | None = None) -> Tensor:
        return torch.mm(dy, matrix if gate is None else matrix * gate)  # the matrix is smaller than the rows

    def weight_gradient(
        self, dy: Operand, x: Right, *weights: nn.Parameter, gate: Tensor | None = None
    ) -> tuple[Gradients, Tensor | None]:
        mains = [main for main in map(main_grad, weights) if main is not None]
        if gate is None and len(weights) == 1 and mains and weights[0].requires_grad:
            add_product(dy, x, mains[0])
            return (None,), None
        return deliver(transposed_product(dy, x, wide=bool(mains) or gate is not None), weights, gate)


PLAIN = PlainProducts()
