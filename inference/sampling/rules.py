"""The rules of sampling as tensor arithmetic on rows of many sessions: fixed shapes, no value read on the host.

Order: banned tokens, the silence threshold (on the probabilities that are left), repetition penalty, temperature, top-k, top-p.
The last five equal transformers' processors of their names, but for ties: tokens of equal score are kept or dropped together.
What is drawn depends on the row alone, not on its batch: probabilities are integers, whose sums have no order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import torch

from inference.kernels.tokens import best_tokens
from inference.kernels.torch_forms.tokens import allowed_scores, finish
from inference.sampling.config import SamplingConfig
from inference.sampling.counter import uniform
from inference.sampling.path import EVERY, SamplingPath

BANNED, SILENCED, SEEN = 1, 2, 4
"""Bits of a token's flags: never chosen; becomes silence when chosen; was said before."""

COLUMNS = 8
"""Of a packed row: top-k, silence id, whether to sample; then, as fp64, temperature, top-p, penalty, threshold, random number."""

_UNIT = 2.0**36
"""Weight of the likeliest token: 131072 of them sum up to 2^53, which fp64 counts exactly."""


@dataclass
class Rows:
    """Settings and state of R rows."""

    packed: torch.Tensor
    """int64 [R, COLUMNS]"""
    flags: torch.Tensor
    """uint8 [R, V]"""
    following: torch.Tensor | None = None
    """int64 [R]: tokens that count as said before, though their samplers have not accepted them yet; below 0: none."""

    def real(self, column: int) -> torch.Tensor:
        """fp64 [R] of a packed column."""
        return self.packed.view(torch.float64)[:, column]


def pack(config: SamplingConfig, counter: int, silence_id: int | None) -> list[int]:
    """One row of `Rows.packed`."""
    threshold = 0.0 if silence_id is None else config.silence_threshold
    drawn = uniform(config.seed, counter) if config.do_sample else 0.0
    floats = (config.temperature, config.top_p, config.repetition_penalty, threshold, drawn)
    bits = struct.unpack("<5q", struct.pack("<5d", *floats))
    return [config.top_k, silence_id or 0, int(config.do_sample), *bits]


def choose(logits: torch.Tensor, rows: Rows, path: SamplingPath) -> torch.Tensor:
    """The next token of each row.

    Args:
        logits: fp32 [R, V]; left as they are.

    Returns:
        int64 [R]; -1 where no token can be chosen: a score is NaN or infinite, or all tokens are banned.
    """
    top_k, silence, sample = rows.packed[:, :3].unbind(1)
    if not (path.sampled or path.threshold or path.penalty):
        return best_tokens(logits, rows.flags, silence, BANNED, SILENCED)
    scores = allowed_scores(logits, rows.flags, BANNED)
    if path.threshold:
        scores = _forbid_unlikely_silence(scores, silence, rows.real(6))
    if path.penalty:
        scores = _penalize(scores, rows, rows.real(5))
    best, tokens = scores.max(-1)
    if path.sampled:
        # Rows that have no valid score must not reach integers; they are marked in the end.
        scores = torch.where((best.abs() < float("inf"))[:, None], scores, 0.0) / rows.real(3).float()[:, None]
        drawn = _draw(kept_weights(scores, top_k, rows.real(4), path.candidates), rows.real(7))
        tokens = torch.where(sample != 0, drawn, tokens)
    return finish(tokens, best, rows.flags, silence, SILENCED)


def _forbid_unlikely_silence(scores: torch.Tensor, silence: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    index = silence[:, None]
    unlikely = torch.softmax(scores, -1).gather(1, index) < threshold[:, None]
    return scores.scatter(1, index, torch.where(unlikely, float("-inf"), scores.gather(1, index)))


def _penalize(scores: torch.Tensor, rows: Rows, penalty: torch.Tensor) -> torch.Tensor:
    """Scores of tokens that were said are divided by the penalty where they are positive and multiplied where negative."""
    flags = rows.flags
    if rows.following is not None:
        index = rows.following.clamp(min=0)[:, None]
        now = flags.gather(1, index)
        flags = flags.scatter(1, index, torch.where(rows.following[:, None] >= 0, now | SEEN, now))
    factor = penalty.float()[:, None]
    return torch.where((flags & SEEN).bool(), torch.where(scores < 0, scores * factor, scores / factor), scores)


def kept_weights(scores: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, candidates: int) -> torch.Tensor:
    """Integer weights [R, V], in proportion to the probabilities of what top-k and top-p keep; the best token's is 2^36."""
    best = scores.amax(-1, keepdim=True)
    weights = _integers(scores - best)
    if candidates == 0:
        return weights
    size = scores.shape[1]
    if candidates == EVERY or candidates >= size:
        ordered = scores.sort(-1, descending=True).values  # [R, V]
    else:
        ordered = scores.topk(candidates, -1).values  # [R, candidates]
    last = ordered.gather(1, (top_k - 1).clamp(0, ordered.shape[1] - 1)[:, None])
    last = torch.where(((top_k > 0) & (top_k < size))[:, None], last, float("-inf"))
    weights = weights * (scores >= last)
    goal = top_p[:, None] * weights.sum(-1, keepdim=True).double()
    own = _integers(ordered - best) * (ordered >= last)
    inside = (own.cumsum(-1) - own).double() < goal  # what is likelier does not reach the sum yet
    least = torch.where(inside, ordered, float("inf")).amin(-1, keepdim=True)
    least = torch.where(top_p[:, None] < 1, least, float("-inf"))
    return weights * (scores >= least)


def _integers(below_best: torch.Tensor) -> torch.Tensor:
    return (below_best.exp() * _UNIT).to(torch.int64)


def _draw(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Inverse of the cumulated weights at u of [0, 1): the first token at which they exceed u times their sum. int64 [R]."""
    cumulated = weights.cumsum(-1)
    total = cumulated[:, -1]
    goal = torch.minimum((u * total.double()).to(torch.int64), total - 1)
    return torch.searchsorted(cumulated, goal[:, None], right=True)[:, 0]
