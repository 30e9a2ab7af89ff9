"""Attention of the vision tower in Triton: every query attends to every key, heads of widths that are not powers of two.

A head is cut into a power of two and a rest (80 = 64 + 16): matrix instructions take steps of 16, so nothing is multiplied that
is not there. Keys that do not fill a block come first, with queries: their loads wait together, and the loop needs no mask.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

ROWS, KEYS, STAGES = 128, 64, 3
"""Queries of a program; keys of a step; buffers."""
WARPS, COUNTED_WARPS = 8, 4
"""Warps of a program; of one whose keys count differently often."""

_LOG2_E = 1.4426950408889634


@triton.jit
def _dot_scores(q, q_rest, k, k_rest, REST: tl.constexpr):
    if REST > 0:  # the smaller product first: the compiler waits between the two, and may leave the last under way
        s = tl.dot(q, k.T, tl.dot(q_rest, k_rest.T))
    else:
        s = tl.dot(q, k.T)
    return s


@triton.jit
def _scores(q, q_rest, k_desc, k_rest_desc, frame, head, start, KEYS: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr):
    k = k_desc.load([frame, head, start, 0]).reshape(KEYS, MAIN)
    k_rest = k
    if REST > 0:
        k_rest = k_rest_desc.load([frame, head, start, MAIN]).reshape(KEYS, REST)
    return _dot_scores(q, q_rest, k, k_rest, REST)


@triton.jit
def _weights(s, peak, total, bias, scale, WEIGHTED: tl.constexpr):
    """Of a step's raw scores: exponentials under the new peak, what earlier sums shrink by, the new peak and total; base 2."""
    if WEIGHTED:
        s = s * scale + bias[None]
        new = tl.maximum(peak, tl.max(s, 1))
        p = tl.exp2(s - new[:, None])
    else:
        new = tl.maximum(peak, tl.max(s, 1) * scale)
        p = tl.exp2(s * scale - new[:, None])
    shrink = tl.exp2(peak - new)
    return p, shrink, new, total * shrink + tl.sum(p, 1)


@triton.jit
def _mix(
    p, shrink, acc, acc_rest, v_desc, v_rest_desc, frame, head, start, KEYS: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr
):
    v = v_desc.load([frame, head, start, 0]).reshape(KEYS, MAIN)
    p = p.to(v.dtype)
    acc = tl.dot(p, v, acc * shrink[:, None])
    if REST > 0:
        v_rest = v_rest_desc.load([frame, head, start, MAIN]).reshape(KEYS, REST)
        acc_rest = tl.dot(p, v_rest, acc_rest * shrink[:, None])
    return acc, acc_rest


@triton.jit
def _bias(bias_ptr, start, KEYS: tl.constexpr, WEIGHTED: tl.constexpr):
    if WEIGHTED:
        bias = tl.load(bias_ptr + start + tl.arange(0, KEYS))
    else:
        bias = tl.zeros((KEYS,), dtype=tl.float32)
    return bias


@triton.jit
def _short_load(ptr, stride, key, there, WIDTH: tl.constexpr, MAIN: tl.constexpr, REST: tl.constexpr):
    """Some rows of keys or values; 0 where there is none."""
    column = tl.arange(0, MAIN)[None]
    x = tl.load(ptr + key[:, None] * stride + column, mask=there[:, None] & (column < WIDTH), other=0.0)
    x_rest = x
    if REST > 0:
        column = MAIN + tl.arange(0, REST)[None]
        x_rest = tl.load(ptr + key[:, None] * stride + column, mask=there[:, None] & (column < WIDTH), other=0.0)
    return x, x_rest


@triton.jit
def _short_step(
    q,
    q_rest,
    k,
    k_rest,
    v,
    v_rest,
    bias_ptr,
    key,
    there,
    peak,
    total,
    acc,
    acc_rest,
    scale,
    REST: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """A step of fewer keys than the loop's, of which some may be absent."""
    s = _dot_scores(q, q_rest, k, k_rest, REST)
    s = tl.where(there[None], s, float("-inf"))
    bias = key.to(tl.float32)
    if WEIGHTED:
        bias = tl.load(bias_ptr + key, mask=there, other=0.0)
    p, shrink, peak, total = _weights(s, peak, total, bias, scale, WEIGHTED)
    p = p.to(v.dtype)
    acc = tl.dot(p, v, acc * shrink[:, None])
    if REST > 0:
        acc_rest = tl.dot(p, v_rest, acc_rest * shrink[:, None])
    return peak, total, acc, acc_rest


@triton.jit
def _vision_attention(
    q_desc,
    q_rest_desc,
    k_desc,
    k_rest_desc,
    v_desc,
    v_rest_desc,
    k_ptr,
    v_ptr,
    bias_ptr,
    out_ptr,
    k_frame,
    k_head,
    k_row,
    v_frame,
    v_head,
    v_row,
    queries,
    keys,
    whole,
    heads,
    scale,
    WIDTH: tl.constexpr,
    MAIN: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    HALF: tl.constexpr,
    TAIL: tl.constexpr,
    WEIGHTED: tl.constexpr,
    STAGES: tl.constexpr,
):
    row = tl.program_id(0) * ROWS
    head = tl.program_id(1) % heads
    frame = tl.program_id(1) // heads
    k_ptr += frame.to(tl.int64) * k_frame + head * k_head
    v_ptr += frame.to(tl.int64) * v_frame + head * v_head
    if HALF > 0:  # all that is read before the loop is asked for at once
        half = whole + tl.arange(0, HALF)
        k_half, k_half_rest = _short_load(k_ptr, k_row, half, half < keys, WIDTH, MAIN, REST)
        v_half, v_half_rest = _short_load(v_ptr, v_row, half, half < keys, WIDTH, MAIN, REST)
    if TAIL > 0:
        tail = whole + HALF + tl.arange(0, TAIL)
        k_tail, k_tail_rest = _short_load(k_ptr, k_row, tail, tail < keys, WIDTH, MAIN, REST)
        v_tail, v_tail_rest = _short_load(v_ptr, v_row, tail, tail < keys, WIDTH, MAIN, REST)
    q = q_desc.load([frame, head, row, 0]).reshape(ROWS, MAIN)
    q_rest = q
    if REST > 0:
        q_rest = q_rest_desc.load([frame, head, row, MAIN]).reshape(ROWS, REST)
    peak = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    acc = tl.zeros((ROWS, MAIN), dtype=tl.float32)
    acc_rest = tl.zeros((ROWS, REST if REST > 0 else 1), dtype=tl.float32)
    if HALF > 0:
        peak, total, acc, acc_rest = _short_step(
            q,
            q_rest,
            k_half,
            k_half_rest,
            v_half,
            v_half_rest,
            bias_ptr,
            half,
            half < keys,
            peak,
            total,
            acc,
            acc_rest,
            scale,
            REST,
            WEIGHTED,
        )
    if TAIL > 0:
        peak, total, acc, acc_rest = _short_step(
            q,
            q_rest,
            k_tail,
            k_tail_rest,
            v_tail,
            v_tail_rest,
            bias_ptr,
            tail,
            tail < keys,
            peak,
            total,
            acc,
            acc_rest,
            scale,
            REST,
            WEIGHTED,
        )
    for start in tl.range(0, whole, KEYS, num_stages=STAGES):
        s = _scores(q, q_rest, k_desc, k_rest_desc, frame, head, start, KEYS, MAIN, REST)
        bias = _bias(bias_ptr, start, KEYS, WEIGHTED)
        p, shrink, peak, total = _weights(s, peak, total, bias, scale, WEIGHTED)
        acc, acc_rest = _mix(p, shrink, acc, acc_rest, v_desc, v_rest_desc, frame, head, start, KEYS, MAIN, REST)
    share = (1.0 / total)[:, None]
    query = row + tl.arange(0, ROWS)
    out_ptr += (frame.to(tl.int64) * queries * heads + head) * WIDTH
    place = out_ptr + query.to(tl.int64)[:, None] * (heads * WIDTH)
    column = tl.arange(0, MAIN)[None]
    tl.store(place + column, (acc * share).to(out_ptr.dtype.element_ty), mask=(query < queries)[:, None] & (column < WIDTH))
    if REST > 0:
        column = MAIN + tl.arange(0, REST)[None]
        value = (acc_rest * share).to(out_ptr.dtype.element_ty)
        tl.store(place + column, value, mask=(query < queries)[:, None] & (column < WIDTH))


def split_width(width: int) -> tuple[int, int]:
    """(largest power of two, what is left as one of at least 16, or 0) of a head's width."""
    main = max(16, 1 << (width.bit_length() - 1))
    return main, 0 if width <= main else max(16, triton.next_power_of_2(width - main))


def split_keys(keys: int, step: int) -> tuple[int, int, int]:
    """(keys in whole steps, those of a smaller step that is full, width of the last step with absent keys or 0)."""
    rest = keys % step
    half = 64 if step > 64 and rest >= 64 and rest - 64 <= 32 else 0
    return keys - rest, half, max(16, triton.next_power_of_2(rest - half)) if rest > half else 0


def vision_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    rows: int = ROWS,
    step: int = KEYS,
    warps: int | None = None,
    stages: int = STAGES,
    maxnreg: int | None = None,
) -> torch.Tensor:
    """As the function of `inference.kernels.vision_attention`, `bias` its log2_counts; other launches are for measuring."""
    frames, heads, queries, width = q.shape
    keys = k.shape[2]
    main, rest = split_width(width)
    out = torch.empty(frames, queries, heads * width, dtype=q.dtype, device=q.device)
    if not out.numel():
        return out
    whole, half, tail = split_keys(keys, step)

    def described(x: torch.Tensor, tall: int, wide: int) -> TensorDescriptor:
        return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, tall, wide])

    _vision_attention[(triton.cdiv(queries, rows), frames * heads)](
        described(q, rows, main),
        described(q, rows, rest or main),
        described(k, step, main),
        described(k, step, rest or main),
        described(v, step, main),
        described(v, step, rest or main),
        k,
        v,
        bias,
        out,
        *k.stride()[:3],
        *v.stride()[:3],
        queries,
        keys,
        whole,
        heads,
        width**-0.5 * _LOG2_E,
        WIDTH=width,
        MAIN=main,
        REST=rest,
        ROWS=rows,
        KEYS=step,
        HALF=half,
        TAIL=tail,
        WEIGHTED=bias is not None,
        STAGES=stages,
        num_warps=warps or (WARPS if bias is None else COUNTED_WARPS),
        num_stages=stages,
        maxnreg=maxnreg,
    )
    return out
