"""FlexAttention over block lists made from the rows' bounds: Triton kernels that skip what no row of a tile sees."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from model.attention.cross.block_lists import key_bounds, tile_lists
from model.attention.cross.plan import CrossPlan

TILE = 128

KERNEL_OPTIONS: dict[str, Any] = {
    "IS_DIVISIBLE": True, "fwd_BLOCK_M": 128, "fwd_BLOCK_N": 128, "fwd_num_warps": 8, "fwd_num_stages": 3,
    "bwd_BLOCK_M1": 64, "bwd_BLOCK_N1": 128, "bwd_BLOCK_M2": 128, "bwd_BLOCK_N2": 64, "bwd_num_warps": 8, "bwd_num_stages": 3,
}  # fmt: skip
"""Inputs come in whole tiles, which a compilation for all lengths could not know; its checks at every load cost a quarter."""


@functools.cache
def _compiled() -> Any:
    """One compilation for all lengths: the numbers of rows and keys stay symbols."""
    return torch.compile(flex.flex_attention, dynamic=True)


def _whole(length: int) -> int:
    """The length in whole tiles."""
    return -(-length // TILE) * TILE


def _block_mask(plan: CrossPlan) -> flex.BlockMask:
    lists, _ = tile_lists(plan, TILE, TILE)
    begin, end = key_bounds(plan, TILE)

    def sees(_batch: Tensor, _head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return (key >= begin[row]) & (key < end[row])

    return flex.BlockMask.from_kv_blocks(
        lists.partial_count, lists.partial_index, lists.full_count, lists.full_index,
        BLOCK_SIZE=TILE, mask_mod=sees, seq_lengths=(_whole(plan.num_rows), _whole(plan.num_keys)),
    )  # fmt: skip


def _by_head(rows: Tensor) -> Tensor:
    """[n, heads, d] -> [1, heads, whole tiles, d]; a view where n is whole tiles."""
    missing = _whole(len(rows)) - len(rows)
    return (F.pad(rows, (0, 0, 0, 0, 0, missing)) if missing else rows).transpose(0, 1)[None]


def flex_cross_attention(q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> tuple[Tensor, Tensor]:
    """Shapes and results as `model.attention.cross.attention.cross_attention` with the log-sums; both are differentiable.

    On the CPU it runs uncompiled, builds all scores, and has no backward pass: it is there for comparisons only.
    """
    run, options = (_compiled(), KERNEL_OPTIONS) if q.is_cuda else (flex.flex_attention, None)
    out, aux = run(
        _by_head(q), _by_head(k.flatten(0, 1)), _by_head(v.flatten(0, 1)), block_mask=plan.derive("flex", _block_mask),
        scale=q.shape[-1] ** -0.5, enable_gqa=q.shape[1] != k.shape[2], return_aux=flex.AuxRequest(lse=True),
        kernel_options=options,
    )  # fmt: skip
    mixed: Tensor = out[0].transpose(0, 1)[: len(q)].flatten(1)
    sums: Tensor = aux.lse[0].transpose(0, 1)[: len(q)]
    return mixed, sums
