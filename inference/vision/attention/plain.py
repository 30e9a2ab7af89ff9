"""The formula itself; what every other backend is held against."""

from __future__ import annotations

from torch import Tensor

TRACEABLE = True


def problem(device_type: str) -> str | None:
    """None: it runs everywhere."""
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] -> [F, T, heads * d]; softmax in fp32."""
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # [F, heads, T, S]
    mixed: Tensor = scores.softmax(-1).to(v.dtype) @ v
    return mixed.transpose(1, 2).flatten(2)
