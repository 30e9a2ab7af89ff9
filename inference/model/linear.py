"""A matrix of the decoder in whatever form it is kept: what the layers call, so that they do not know the form."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F


class Linear(Protocol):
    """Multiplies rows with a weight [out, in]."""

    @property
    def num_bytes(self) -> int:
        """Bytes read for one product."""
        ...

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], in the dtype of `x`."""
        ...


class DenseLinear:
    """The weight as the checkpoint has it, in the model's dtype."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        """[out, in]"""

    @property
    def num_bytes(self) -> int:
        return self.weight.numel() * self.weight.element_size()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)
