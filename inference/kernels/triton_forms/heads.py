"""Rotation, head norms and writing into pages: one program for one head of one row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference.kernels.triton_forms.dependent import enter, launch_options

_NO_NORM, _NORM_FIRST, _NORM_LAST = 0, 1, 2


@triton.jit
def _scaled(first, second, weight_ptr, eps, at, inside, HALF: tl.constexpr, kind: tl.constexpr):
    """The norm of a head that is held as two halves."""
    factor = 1.0 / tl.sqrt_rn((tl.sum(first * first) + tl.sum(second * second)) / (2 * HALF) + eps)
    low = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(weight_ptr + HALF + at, mask=inside, other=0.0).to(tl.float32)
    first = ((first * factor).to(kind).to(tl.float32) * low).to(kind).to(tl.float32)
    second = ((second * factor).to(kind).to(tl.float32) * high).to(kind).to(tl.float32)
    return first, second


@triton.jit
def _put(pointer, first, second, at, inside, HALF: tl.constexpr):
    kind = pointer.dtype.element_ty
    tl.store(pointer + at, first.to(kind), mask=inside)
    tl.store(pointer + HALF + at, second.to(kind), mask=inside)


@triton.jit(do_not_specialize_on_alignment=["slot_ptr"])
def _heads(
    x_ptr, cos_ptr, sin_ptr, weight_ptr, slot_ptr, out_ptr, k_ptr, v_ptr, raw_ptr, scale_ptr,
    x_row, eps, k_page, k_row, k_head, v_page, v_row, v_head, r_page, r_row, r_head, s_kind, s_page, s_row, s_head,
    QUERIES: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, HALF_PAD: tl.constexpr,
    PAGE_ROWS: tl.constexpr, POSITION_ROWS: tl.constexpr, NORM: tl.constexpr, RAW: tl.constexpr, SCALED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    enter(DEPENDENT)
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, HALF_PAD)
    inside = at < HALF
    kind = x_ptr.dtype.element_ty
    source = x_ptr + row * x_row + head * (2 * HALF)
    raw_first = tl.load(source + at, mask=inside, other=0.0)
    raw_second = tl.load(source + HALF + at, mask=inside, other=0.0)
    first, second = raw_first.to(tl.float32), raw_second.to(tl.float32)
    is_value = head >= QUERIES + KV_HEADS
    if not is_value:
        if NORM == 1:
            first, second = _scaled(first, second, weight_ptr, eps, at, inside, HALF, kind)
        position = row // POSITION_ROWS * (2 * HALF)
        cos = tl.load(cos_ptr + position + at, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + position + at, mask=inside, other=0.0).to(tl.float32)
        # Each product is rounded, as separate operations would.
        turned = (first * cos).to(kind).to(tl.float32) - (second * sin).to(kind).to(tl.float32)
        second = ((second * cos).to(kind).to(tl.float32) + (first * sin).to(kind).to(tl.float32)).to(kind).to(tl.float32)
        first = turned.to(kind).to(tl.float32)
        if NORM == 2:
            first, second = _scaled(first, second, weight_ptr, eps, at, inside, HALF, kind)
    else:  # a tile of attention multiplies other sessions' values by 0, which must give 0; the key still says what is wrong
        first = tl.where(tl.abs(first) < float("inf"), first, 0.0)
        second = tl.where(tl.abs(second) < float("inf"), second, 0.0)
    if head < QUERIES:
        _put(out_ptr + (row * QUERIES + head) * (2 * HALF), first, second, at, inside, HALF)
    elif KV_HEADS > 0:
        slot = tl.load(slot_ptr + row)
        page, place = slot // PAGE_ROWS, slot % PAGE_ROWS
        lane = head - QUERIES
        if RAW:  # noqa: SIM102 (known when it is compiled; the next is not)
            if not is_value:
                to = raw_ptr + page * r_page + place * r_row + lane * r_head
                _put(to, raw_first, raw_second, at, inside, HALF)
        if is_value:
            lane -= KV_HEADS
        if SCALED:
            most = tl.maximum(tl.max(tl.abs(first)), tl.max(tl.abs(second)))
            scale = tl.div_rn(tl.maximum(most, 1e-12), 448.0)
            target = scale_ptr + page * s_page + place * s_row + lane * s_head
            if is_value:
                target += s_kind
            tl.store(target, scale)
            first, second = tl.div_rn(first, scale), tl.div_rn(second, scale)
        if is_value:
            _put(v_ptr + page * v_page + place * v_row + lane * v_head, first, second, at, inside, HALF)
        else:
            _put(k_ptr + page * k_page + place * k_row + lane * k_head, first, second, at, inside, HALF)


def _launch(
    x: torch.Tensor,
    rows: int,
    queries: int,
    cos: torch.Tensor,
    sin: torch.Tensor,
    norm: tuple[int, torch.Tensor, float] | None,
    out: torch.Tensor | None,
    pages: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None] | None,
    dim: int,
) -> None:
    """Fill `out` and the pages (keys, values, slots, scales, raw keys) from rows [N, heads * dim]."""
    if rows == 0:
        return
    how, weight, eps = norm or (_NO_NORM, cos, 0.0)
    keys, values, slots, scales, raw = pages or (x, x, x, None, None)
    kv_heads = keys.shape[2] if pages else 0
    strides = [t.stride()[:3] if pages else (0, 0, 0) for t in (keys, values, keys if raw is None else raw)]
    _heads[(rows, queries + 2 * kv_heads)](
        x, cos, sin, weight, slots, x if out is None else out, keys, values, x if raw is None else raw,
        x if scales is None else scales, x.stride(0), eps, *strides[0], *strides[1], *strides[2],
        *((0, 0, 0, 0) if scales is None else scales.stride()),
        QUERIES=queries, KV_HEADS=kv_heads, HALF=dim // 2, HALF_PAD=triton.next_power_of_2(dim // 2),
        PAGE_ROWS=keys.shape[1] if pages else 1, POSITION_ROWS=rows // cos.shape[0], NORM=how,
        RAW=raw is not None, SCALED=scales is not None, num_warps=1, **launch_options(x.device, rows),
        enable_fp_fusion=False,  # a rotation's products and their sum would become one operation with one rounding
    )  # fmt: skip


def rotate_and_store(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    scales: torch.Tensor | None,
    raw_keys: torch.Tensor | None,
) -> torch.Tensor:
    """As `inference.kernels.heads.rotate_and_store`."""
    rows, dim = qkv.shape[0], keys.shape[3]
    heads = qkv.shape[1] // dim - 2 * keys.shape[2]
    out = torch.empty(rows, heads, dim, dtype=qkv.dtype, device=qkv.device)
    pages = (keys, values, slots, scales, raw_keys)
    _launch(qkv, rows, heads, cos.contiguous(), sin.contiguous(), None, out, pages, dim)
    return out


def norm_rotate(queries: torch.Tensor, weight: torch.Tensor, eps: float, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """As `inference.kernels.heads.norm_rotate`."""
    rows, heads, dim = queries.shape
    out = torch.empty_like(queries)
    norm = (_NORM_FIRST, weight, eps)
    _launch(queries.view(rows, heads * dim), rows, heads, cos.contiguous(), sin.contiguous(), norm, out, None, dim)
    return out


def store_frames(
    kv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    scales: torch.Tensor | None,
    raw_keys: torch.Tensor | None,
) -> None:
    """As `inference.kernels.heads.store_frames`."""
    norm = (_NORM_LAST, weight, eps)
    pages = (keys, values, slots, scales, raw_keys)
    _launch(kv, kv.shape[0], 0, cos.contiguous(), sin.contiguous(), norm, None, pages, keys.shape[3])
