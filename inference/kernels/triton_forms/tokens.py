"""Greedy choice in two launches: the best token of each block of the vocabulary, then the best of those."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 2048
_NOWHERE = tl.constexpr(2**31 - 1)


@triton.jit
def _first_of(scores, column):
    """(largest score, the first column that has it)."""
    best = tl.max(scores)
    return best, tl.min(tl.where(scores == best, column, _NOWHERE))


@triton.jit
def _best_of_block(
    logits_ptr, flags_ptr, score_ptr, token_ptr, width, logits_row, flags_row, BANNED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = block * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    flags = tl.load(flags_ptr + row * flags_row + column, mask=inside, other=BANNED)
    scores = tl.load(logits_ptr + row * logits_row + column, mask=inside, other=float("-inf")).to(tl.float32)
    scores = tl.where(scores == scores, scores, float("inf"))  # what is no number must not be passed over
    scores = tl.where((flags & BANNED) != 0, float("-inf"), scores)
    best, token = _first_of(scores, column)
    place = row * tl.num_programs(0) + block
    tl.store(score_ptr + place, best)
    tl.store(token_ptr + place, token)


@triton.jit
def _best_of_row(
    score_ptr, token_ptr, flags_ptr, silence_ptr, out_ptr, blocks, flags_row, silence_row,
    SILENCED: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, PAD)
    scores = tl.load(score_ptr + row * blocks + block, mask=block < blocks, other=float("-inf"))
    best, first = _first_of(scores, block)
    token = tl.load(token_ptr + row * blocks + first)  # blocks stand in the order of their tokens
    flags = tl.load(flags_ptr + row * flags_row + token)
    said = tl.where((flags & SILENCED) != 0, tl.load(silence_ptr + row * silence_row), token.to(tl.int64))
    tl.store(out_ptr + row, tl.where(tl.abs(best) < float("inf"), said, -1))


def best_tokens(logits: torch.Tensor, flags: torch.Tensor, silence: torch.Tensor, banned: int, silenced: int) -> torch.Tensor:
    """As `inference.kernels.tokens.best_tokens`."""
    rows, width = logits.shape
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if rows == 0:
        return out
    blocks = triton.cdiv(width, _BLOCK)
    scores = torch.empty(rows, blocks, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(rows, blocks, dtype=torch.int32, device=logits.device)
    _best_of_block[(blocks, rows)](
        logits, flags, scores, tokens, width, logits.stride(0), flags.stride(0), BANNED=banned, BLOCK=_BLOCK, num_warps=4
    )
    _best_of_row[(rows,)](
        scores, tokens, flags, silence, out, blocks, flags.stride(0), silence.stride(0),
        SILENCED=silenced, PAD=max(triton.next_power_of_2(blocks), 16), num_warps=1,
    )  # fmt: skip
    return out
