"""A matrix of the decoder in whatever form it is kept: what the layers call, so that they do not know the form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

from inference.kernels.gates import silu_and_multiply
from inference.kernels.skinny import MAX_ROWS, skinny_linear, skinny_swiglu
from inference.quantize.linear import Fp8Linear
from inference.quantize.rows import FP8
from model.kernels.select import Form, choose_form

FACTOR = "_factor"
"""Ending of the name under which the factors of an fp8 weight stand beside it."""


class Linear(Protocol):
    """Multiplies rows with a weight [out, in]."""

    @property
    def num_bytes(self) -> int:
        """Bytes read for one product."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of `x`."""
        ...

    def swiglu(self, x: torch.Tensor) -> torch.Tensor:
        """silu of the first half of the product times the second: [..., in] -> [..., out / 2]."""
        ...


class DenseLinear:
    """The weight as the checkpoint has it, in the model's dtype."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        """[out, in]"""
        self.form: Form | None = None
        """Of products of up to 16 rows: torch's ("torch"), those of `inference.kernels.skinny` ("triton"), or None: by device."""

    @property
    def num_bytes(self) -> int:
        return self.weight.numel() * self.weight.element_size()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return skinny_linear(x, self.weight, form=self.form) if self._streams(x) else F.linear(x, self.weight)

    def swiglu(self, x: torch.Tensor) -> torch.Tensor:
        return skinny_swiglu(x, self.weight, form=self.form) if self._streams(x) else silu_and_multiply(self(x))

    def _streams(self, x: torch.Tensor) -> bool:
        return 0 < x.numel() <= MAX_ROWS * x.shape[-1] and choose_form(x.device, self.form) == "triton"


def set_products(matrices: Iterable[Linear], form: Form | None) -> None:
    """From now on the dense ones of these matrices multiply few rows in this form (None: by device)."""
    for matrix in matrices:
        if isinstance(matrix, DenseLinear):
            matrix.form = form


def fuse(tensors: Mapping[str, torch.Tensor], *names: str) -> Linear:
    """Matrices that multiply the same rows, as one.

    Args:
        tensors: weights [out, in] by name; of a float8_e4m3fn weight also its factors [out]. What can be taken out is, so that a
            model in the making holds at most these matrices twice.
    """
    weights = _take(tensors, names)
    if weights[0].dtype == FP8:
        return Fp8Linear(_join(weights), _join(_take(tensors, [name + FACTOR for name in names])))
    return DenseLinear(_join(weights))


def _take(tensors: Mapping[str, torch.Tensor], names: Sequence[str]) -> list[torch.Tensor]:
    return [tensors.pop(name) if isinstance(tensors, MutableMapping) else tensors[name] for name in names]


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
