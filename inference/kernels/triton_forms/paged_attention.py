"""Attention over pages in Triton: split over keys for a few rows, tiles of rows for many; the keys are read where they lie.

A program takes a tile of rows, one key/value head and one share (split) of the keys. The rows of a tile times the query heads
that share the head make the rows of the matrix product. A tile may hold rows of several sessions: it walks over the keys of
each of them in turn, with the other sessions' rows masked, so nothing about sessions has to be known at launch. The running
softmax is that of Milakov and Gimelshein (2018); shares of the keys are combined by a second kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from inference.kernels.triton_forms.dependent import EARLY, LATE, OFF, announce, enter, fetch, launch_options, wait
from inference.kernels.triton_forms.skinny import widened
from model.kernels.select import multiprocessors

_LOG2_E = 1.4426950408889634
_MOST_SPLITS = 128


_LIFT = tl.constexpr(1024.0)
"""Factor of weights times scales in the product: fp16 has nothing below 6e-8, and scales are the largest value over 448."""


@dataclass(frozen=True)
class Launch:
    """Shape of a launch: what a benchmark varies. `launch_shape` gives the default."""

    tile: int
    """Rows of a program."""
    block: int
    """Keys that are read at a time."""
    splits: int
    """Shares of each session's keys."""
    warps: int = 4
    stages: int = 3
    fetch: bool = False
    """Ask for the first keys and values before the queries are there, where the kernel begins early."""


def launch_shape(
    rows: int, heads: int, kv_heads: int, head_dim: int, width: int, page_rows: int, units: int, *, scaled: bool = False
) -> Launch:
    """A launch of one to two programs a multiprocessor; twice as many for tiles that compute more than they read.

    Args:
        rows, heads, kv_heads, head_dim: of the queries and keys.
        width: pages that a table has room for.
        page_rows: rows of a page.
        units: multiprocessors of the device.
        scaled: keys in fp8.

    The number of shares is an argument of the kernel: prompts of any length share its code.
    """
    group = triton.next_power_of_2(heads // kv_heads)
    # Up to 16 rows come from as many sessions as a rule; more are a prompt, whose rows read the same keys.
    tile = max(16 // group, 1) if rows <= 16 else max(64 // group, 1)
    # Keys in fp8 are half as many bytes, and a block's time is its conversion and its two products one after the other.
    block = (128 if scaled and tile * group <= 16 else 64) if head_dim <= 128 else 32
    programs = triton.cdiv(rows, tile) * kv_heads
    most = max(triton.cdiv(width * page_rows, 2 * block), 1)
    waves = 2 if tile * group <= 16 else 4
    splits = max(1, min(waves * units // programs, most, _MOST_SPLITS))
    # Five stages keep two blocks of keys on their way: half of the stages go into fetching page numbers ahead of them.
    return Launch(tile, block, splits, stages=5 if tile * group <= 16 else 3)


# Rows' integers lie anywhere in one buffer: their alignment makes no kernel of its own.
@triton.jit(
    do_not_specialize=["rows", "width", "splits"], do_not_specialize_on_alignment=["table_ptr", "session_ptr", "limit_ptr"]
)
def _attend(
    q_ptr, k_ptr, v_ptr, scale_ptr, table_ptr, session_ptr, limit_ptr, out_ptr, part_ptr, stat_ptr,
    rows, width, splits, softmax_scale,
    q_row, q_head, k_page, k_row, k_head, v_page, v_row, v_head, s_kind, s_page, s_row, s_head,
    HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PAD: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    PAGE_ROWS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
    SCALED: tl.constexpr, EXACT: tl.constexpr, KIND: tl.constexpr,
    FETCH: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    announce(DEPENDENT, EARLY)
    head, split = tl.program_id(1), tl.program_id(2)
    first = tl.program_id(0) * TILE
    folded = tl.arange(0, TILE * GROUP_PAD)  # row of the product = row of the tile * GROUP_PAD + query head of the group
    row = first + folded // GROUP_PAD
    member = folded % GROUP_PAD
    live = (row < rows) & (member < GROUP)
    dim = tl.arange(0, DIM_PAD)
    inside = dim < DIM
    query_head = head * GROUP + member
    session = tl.load(session_ptr + row, mask=live, other=-1)
    limit = tl.load(limit_ptr + row, mask=live, other=0)
    place_in_tile = folded // GROUP_PAD
    left = tl.where(live & (limit > 0), place_in_tile, TILE)
    turn = tl.min(left)
    if FETCH:
        # Who sees what, and the tables, are of the whole step; only the newest of the keys may still be on its way.
        mine = tl.max(tl.where(place_in_tile == turn, session, -1))
        longest = tl.max(tl.where(session == mine, limit, 0))
        share = tl.cdiv(tl.cdiv(longest, splits), BLOCK) * BLOCK
        key = split * share + tl.arange(0, BLOCK)
        valid = (key < tl.minimum(split * share + share, longest)) & (turn < TILE)
        page = tl.load(table_ptr + mine.to(tl.int64) * width + key // PAGE_ROWS, mask=valid, other=0).to(tl.int64)
        size: tl.constexpr = k_ptr.dtype.element_ty.primitive_bitwidth // 8
        fetch(k_ptr.to(tl.int64) + (page * k_page + key % PAGE_ROWS * k_row + head * k_head) * size, DIM * size)
        fetch(v_ptr.to(tl.int64) + (page * v_page + key % PAGE_ROWS * v_row + head * v_head) * size, DIM * size)
    wait(DEPENDENT)
    q = tl.load(
        q_ptr + row[:, None].to(tl.int64) * q_row + query_head[:, None] * q_head + dim[None, :],
        mask=live[:, None] & inside[None, :],
        other=0.0,
    ).to(KIND)  # [TILE * GROUP_PAD, DIM_PAD]
    best = tl.full([TILE * GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([TILE * GROUP_PAD], tl.float32)
    sums = tl.zeros([TILE * GROUP_PAD, DIM_PAD], tl.float32)

    # Every session of the tile has its turn at its first row; rows that see nothing have none.
    while turn < TILE:
        mine = tl.max(tl.where(place_in_tile == turn, session, -1))
        here = session == mine
        seen = tl.where(here, limit, 0)
        longest = tl.max(seen)
        share = tl.cdiv(tl.cdiv(longest, splits), BLOCK) * BLOCK
        begin = split * share
        end = tl.minimum(begin + share, longest)
        table = table_ptr + mine.to(tl.int64) * width
        for start in range(begin, end, BLOCK):
            key = start + tl.arange(0, BLOCK)
            valid = key < end
            page = tl.load(table + key // PAGE_ROWS, mask=valid, other=0).to(tl.int64)
            place = key % PAGE_ROWS
            k = tl.load(
                k_ptr + (page * k_page + place * k_row + head * k_head)[:, None] + dim[None, :],
                mask=valid[:, None] & inside[None, :],
                other=0.0,
            )  # [BLOCK, DIM_PAD]
            v = tl.load(
                v_ptr + (page * v_page + place * v_row + head * v_head)[:, None] + dim[None, :],
                mask=valid[:, None] & inside[None, :],
                other=0.0,
            )
            k = tl.trans(widened(k, KIND, SCALED and KIND != tl.float16))
            scores = tl.dot(q, k, input_precision="ieee" if EXACT else "tf32") * softmax_scale
            if SCALED:
                at = scale_ptr + page * s_page + place * s_row + head * s_head
                scores *= tl.load(at, mask=valid, other=0.0)[None, :]
            scores = tl.where(key[None, :] < seen[:, None], scores, float("-inf"))
            higher = tl.maximum(best, tl.max(scores, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)  # -inf minus -inf is not a number
            weights = tl.exp2(scores - base[:, None])
            shrink = tl.exp2(best - base)
            total = total * shrink + tl.sum(weights, 1)
            if SCALED:
                weights *= tl.load(at + s_kind, mask=valid, other=0.0)[None, :] * _LIFT
            v = widened(v, KIND, SCALED and KIND != tl.float16)
            sums = tl.dot(weights.to(KIND), v, sums * shrink[:, None], input_precision="ieee" if EXACT else "tf32")
            best = higher
        left = tl.where(here, TILE, left)
        turn = tl.min(left)

    announce(DEPENDENT, LATE)
    if SCALED:
        sums *= 1.0 / _LIFT
    if WHOLE:
        result = sums / tl.where(total == 0.0, 1.0, total)[:, None]
        to = out_ptr + (row[:, None].to(tl.int64) * HEADS + query_head[:, None]) * DIM + dim[None, :]
        tl.store(to, result.to(out_ptr.dtype.element_ty), mask=live[:, None] & inside[None, :])
    else:
        place = (split * rows + row).to(tl.int64) * HEADS + query_head  # [split, row, head]
        tl.store(part_ptr + place[:, None] * DIM + dim[None, :], sums, mask=live[:, None] & inside[None, :])
        tl.store(stat_ptr + place * 2, best, mask=live)
        tl.store(stat_ptr + place * 2 + 1, total, mask=live)


@triton.jit(do_not_specialize=["pairs", "splits"])
def _combine(
    part_ptr, stat_ptr, out_ptr, pairs, splits, DIM: tl.constexpr, DIM_PAD: tl.constexpr, SPLITS_PAD: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    enter(DEPENDENT)
    pair = tl.program_id(0).to(tl.int64)  # row * heads + head
    split = tl.arange(0, SPLITS_PAD)
    dim = tl.arange(0, DIM_PAD)
    real = split < splits
    place = split * pairs + pair
    best = tl.load(stat_ptr + place * 2, mask=real, other=float("-inf"))
    total = tl.load(stat_ptr + place * 2 + 1, mask=real, other=0.0)
    top = tl.max(best)
    weight = tl.exp2(best - tl.where(top == float("-inf"), 0.0, top))
    part = tl.load(part_ptr + place[:, None] * DIM + dim[None, :], mask=real[:, None] & (dim < DIM)[None, :], other=0.0)
    whole = tl.sum(total * weight)
    result = tl.sum(part * weight[:, None], 0) / tl.where(whole == 0.0, 1.0, whole)
    tl.store(out_ptr + pair * DIM + dim, result.to(out_ptr.dtype.element_ty), mask=dim < DIM)


def _kind(dtype: torch.dtype, scaled: bool) -> tl.dtype:
    """What is multiplied: fp8 keys and values become fp16 in one step, bf16 only in three."""
    if dtype == torch.float32:
        return tl.float32
    return tl.bfloat16 if dtype == torch.bfloat16 and not scaled else tl.float16


def paged_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor | None,
    tables: torch.Tensor,
    session: torch.Tensor,
    limits: torch.Tensor,
    launch: Launch | None = None,
) -> torch.Tensor:
    """As `inference.kernels.paged_attention`; tables [S, W], session [N] and limits [N] are read on the device."""
    rows, heads, dim = queries.shape
    page_rows, kv_heads = keys.shape[1], keys.shape[2]
    out = torch.empty(rows, heads * dim, dtype=queries.dtype, device=queries.device)
    if rows == 0:
        return out
    if launch is None:
        launch = launch_shape(
            rows, heads, kv_heads, dim, tables.shape[1], page_rows, multiprocessors(queries.device), scaled=scales is not None
        )
    splits, group = launch.splits, heads // kv_heads
    group_pad = triton.next_power_of_2(group)
    tile = max(launch.tile, 16 // group_pad)  # a matrix instruction has 16 rows
    dim_pad = max(16, triton.next_power_of_2(dim))  # of the matrix product
    parts = stats = out  # not touched by one split
    if splits > 1:
        parts = torch.empty(splits, rows, heads, dim, dtype=torch.float32, device=queries.device)
        stats = torch.empty(splits, rows, heads, 2, dtype=torch.float32, device=queries.device)
    options = launch_options(queries.device, rows)
    scale_strides = (0, 0, 0, 0) if scales is None else scales.stride()
    _attend[(triton.cdiv(rows, tile), kv_heads, splits)](
        queries, keys, values, keys if scales is None else scales, tables, session, limits, out, parts, stats,
        rows, tables.stride(0), splits, dim**-0.5 * _LOG2_E,
        *queries.stride()[:2], *keys.stride()[:3], *values.stride()[:3], *scale_strides,
        HEADS=heads, GROUP=group, GROUP_PAD=group_pad, DIM=dim, DIM_PAD=dim_pad,
        PAGE_ROWS=page_rows, TILE=tile, BLOCK=launch.block, WHOLE=splits == 1,
        SCALED=scales is not None, EXACT=queries.dtype == torch.float32,
        KIND=_kind(queries.dtype, scales is not None),
        FETCH=launch.fetch and options["DEPENDENT"] != OFF.value and dim * keys.element_size() % 16 == 0,
        num_warps=launch.warps, num_stages=launch.stages, **options,
    )  # fmt: skip
    if splits > 1:
        pad = 8 if splits <= 8 else 64 if splits <= 64 else 128  # few kinds: each is compiled when first met
        _combine[(rows * heads,)](
            parts, stats, out, rows * heads, splits, DIM=dim, DIM_PAD=dim_pad,
            SPLITS_PAD=pad, num_warps=4 if splits > 8 else 1, **options,
        )  # fmt: skip
    return out
