"""megatron-core's MLP with SwiGLU in one kernel between its products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron.core.transformer.mlp import MLP
from torch import Tensor


class FusedMLP(MLP):
    """Products without biases, as this family has them."""

    def __init__(self, *args: Any, swiglu: Callable[[Tensor], Tensor], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._swiglu = swiglu

    def forward(self, hidden_states: Tensor, per_token_scale: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        """[T, 1, H] -> [T, 1, H]"""
        inner, _ = self.linear_fc1(hidden_states)
        output, _ = self.linear_fc2(self._swiglu(inner))
        return output, None
