"""Greedy choice in torch."""

from __future__ import annotations

import math

import torch


def allowed_scores(logits: torch.Tensor, flags: torch.Tensor, banned: int) -> torch.Tensor:
    """fp32 [R, V], banned tokens at -inf."""
    return logits.float().masked_fill((flags & banned) != 0, -math.inf)


def finish(tokens: torch.Tensor, best: torch.Tensor, flags: torch.Tensor, silence: torch.Tensor, silenced: int) -> torch.Tensor:
    """Tokens [R] as they are said: silence for those that become it, -1 where the largest score `best` [R] is no number."""
    quiet = (flags.gather(1, tokens[:, None])[:, 0] & silenced) != 0
    return torch.where(best.abs() < math.inf, torch.where(quiet, silence, tokens), -1)


def best_tokens(logits: torch.Tensor, flags: torch.Tensor, silence: torch.Tensor, banned: int, silenced: int) -> torch.Tensor:
    """As `inference.kernels.tokens.best_tokens`."""
    best, tokens = allowed_scores(logits, flags, banned).max(-1)
    return finish(tokens, best, flags, silence, silenced)
