"""The formula itself, a frame at a time: for devices without a library, and what libraries are measured against."""

from __future__ import annotations

import torch
from torch import Tensor


def problem(device: torch.device) -> str | None:
    """None: it runs everywhere."""
    return None


def _wide(operand: Tensor) -> torch.dtype:
    """What is computed in: weights of 16 bits would be off by more than the libraries are."""
    return torch.float64 if operand.dtype == torch.float64 else torch.float32


def _probabilities(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """q, k [heads, T, d] -> softmax of their products [heads, T, T], its logarithm's sums [heads, T]."""
    scores = (q @ k.transpose(1, 2)) * q.shape[-1] ** -0.5
    logs = scores.logsumexp(-1)
    return (scores - logs[..., None]).exp(), logs


def forward(qkv: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d], logsumexp [F, heads, T]."""
    frames, tokens, _, heads, width = qkv.shape
    mixed = qkv.new_empty(frames, tokens, heads, width)
    sums = torch.empty(frames, heads, tokens, dtype=_wide(qkv), device=qkv.device)
    for frame in range(frames):
        q, k, v = qkv[frame].to(_wide(qkv)).permute(1, 2, 0, 3)  # [heads, T, d] each
        weights, logs = _probabilities(q, k)
        mixed[frame] = (weights @ v).transpose(0, 1)
        sums[frame] = logs
    return mixed, (sums,)


def backward(dmixed: Tensor, qkv: Tensor, mixed: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Gradient of qkv."""
    dqkv = torch.empty_like(qkv)
    scale = qkv.shape[-1] ** -0.5
    for frame in range(qkv.shape[0]):
        q, k, v = qkv[frame].to(_wide(qkv)).permute(1, 2, 0, 3)  # [heads, T, d] each
        weights, _ = _probabilities(q, k)
        out = dmixed[frame].to(_wide(qkv)).transpose(0, 1)
        share = (out * mixed[frame].transpose(0, 1)).sum(-1, keepdim=True)  # [heads, T, 1]
        dscores = weights * (out @ v.transpose(1, 2) - share) * scale
        dq, dk, dv = dscores @ k, dscores.transpose(1, 2) @ q, weights.transpose(1, 2) @ out
        dqkv[frame] = torch.stack([dq, dk, dv]).permute(2, 0, 1, 3)
    return dqkv
