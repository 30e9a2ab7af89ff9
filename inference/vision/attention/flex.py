"""FlexAttention without a mask: a kernel that torch's compiler writes for these sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

TRACEABLE = True


def problem(device_type: str) -> str | None:
    """Why it cannot be used; None if it can."""
    return None if device_type == "cuda" else "FlexAttention without torch's compiler is slower than the plain form on a CPU"


@cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] -> [F, T, heads * d]."""
    if torch.compiler.is_compiling():
        from torch.nn.attention.flex_attention import flex_attention

        out: Any = flex_attention(q, k, v)
    else:
        out = _compiled()(q, k, v)
    return out.transpose(1, 2).flatten(2)  # type: ignore[no-any-return]
