"""What lies between the matrix products of the vision tower: one pass over rows that a program holds in registers.

A row is read as two pieces whose widths are powers of two (1280 = 1024 + 256), so that no lane is idle, and one warp's reads
are 16 bytes a lane. Everything is rounded where separate operations would round.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

FP8 = torch.float8_e4m3fn


class Launch(NamedTuple):
    """How a kernel is launched."""

    rows: int
    """Rows of a program."""
    warps: int


ADD_NORM = Launch(rows=1, warps=1)
GELU = Launch(rows=1, warps=4)
ROUND = Launch(rows=1, warps=1)


@triton.jit
def _read(ptr, place, mask, MASKED: tl.constexpr):
    """Rows that are read once."""
    if MASKED:
        return tl.load(ptr + place, mask=mask, other=0.0).to(tl.float32)
    else:
        return tl.load(ptr + place).to(tl.float32)


@triton.jit
def _parameter(ptr, column, mask, MASKED: tl.constexpr):
    """A vector that every row takes."""
    if MASKED:
        return tl.load(ptr + column, mask=mask, other=0.0).to(tl.float32)
    else:
        return tl.load(ptr + column).to(tl.float32)


@triton.jit
def _write(ptr, place, value, mask, MASKED: tl.constexpr):
    if MASKED:
        tl.store(ptr + place, value, mask=mask)
    else:
        tl.store(ptr + place, value)


@triton.jit
def _round(x, kind: tl.constexpr, PAIRS: tl.constexpr):
    """x as the type holds it, still in fp32."""
    if PAIRS:  # two a conversion: one by one they go through a unit of an eighth of the speed
        return tl.inline_asm_elementwise(
            "{ .reg .b32 both; cvt.rn.bf16x2.f32 both, $3, $2; shl.b32 $0, both, 16; and.b32 $1, both, 0xffff0000; }",
            "=r,=r,r,r",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=2,
        )
    else:
        return x.to(kind).to(tl.float32)


@triton.jit
def _row_maximum(left, right):
    """[ROWS, 1]"""
    largest = tl.maximum(tl.max(tl.abs(left), axis=1), tl.max(tl.abs(right), axis=1))
    return largest[:, None]


@triton.jit
def _quotient(x, scale, inverse):
    """x / scale as a division rounds it, where inverse is 1 / scale: one step of Newton's method."""
    near = x * inverse
    return tl.fma(tl.fma(near, -scale, x), inverse, near)


@triton.jit
def _write_rounded(out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right,
                   WIDTH: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr):  # fmt: skip
    """Rows in fp8 and their scales."""
    scale = tl.maximum(_row_maximum(left, right), 1e-12) * (1.0 / 448.0)  # as torch on a GPU divides by a number
    inverse = tl.div_rn(1.0, scale)
    kind = out_ptr.dtype.element_ty
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    if EIGHTS:  # a lane writes the 8 elements that it read, though it could write 16 at once: they would have to change lanes
        place_left = tl.max_contiguous(tl.multiple_of(place_left, (1, 8)), (1, 8))
        place_right = tl.max_contiguous(tl.multiple_of(place_right, (1, 8)), (1, 8))
    _write(out_ptr, place_left, _quotient(left, scale, inverse).to(kind), mask_left, MASKED)
    _write(out_ptr, place_right, _quotient(right, scale, inverse).to(kind), mask_right, MASKED)
    _write(scale_ptr, row, scale, inside, MASKED)


@triton.jit
def _finish(
    out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right, kind: tl.constexpr,
    WIDTH: tl.constexpr, ROUNDED: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Writes rows in their type, or these rounded once more to fp8."""
    if ROUNDED:
        _write_rounded(
            out_ptr, scale_ptr, row, column_left, column_right, _round(left, kind, PAIRS), _round(right, kind, PAIRS), inside,
            mask_left, mask_right, WIDTH, MASKED, EIGHTS,
        )  # fmt: skip
    else:
        _write(out_ptr, row * WIDTH + column_left, left.to(kind), mask_left, MASKED)
        _write(out_ptr, row * WIDTH + column_right, right.to(kind), mask_right, MASKED)


@triton.jit
def _added(x_ptr, y_ptr, bias_ptr, sum_ptr, gate, place, column, mask, BIASED: tl.constexpr, MASKED: tl.constexpr):
    """x + gate * (y + bias), which is also written; fp32."""
    kind = sum_ptr.dtype.element_ty
    x = _read(x_ptr, place, mask, MASKED)
    y = _read(y_ptr, place, mask, MASKED)
    if BIASED:
        y = (y + _parameter(bias_ptr, column, mask, MASKED)).to(kind).to(tl.float32)
    y = (gate * y).to(kind).to(tl.float32)
    total = (x + y).to(kind)
    _write(sum_ptr, place, total, mask, MASKED)
    return total.to(tl.float32)


@triton.jit
def _add_norm(
    x_ptr, y_ptr, bias_ptr, gate_ptr, weight_ptr, shift_ptr, sum_ptr, out_ptr, scale_ptr, rows, eps,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr,
    ROUNDED: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    inside = row < rows
    mask_left, mask_right = inside & (column_left < WIDTH), inside & (column_right < WIDTH)
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    gate = tl.load(gate_ptr).to(tl.float32)
    left = _added(x_ptr, y_ptr, bias_ptr, sum_ptr, gate, place_left, column_left, mask_left, BIASED, MASKED)
    right = _added(x_ptr, y_ptr, bias_ptr, sum_ptr, gate, place_right, column_right, mask_right, BIASED, MASKED)
    mean = ((tl.sum(left, axis=1) + tl.sum(right, axis=1)) / WIDTH)[:, None]
    left -= mean
    right -= mean
    if MASKED:
        right = tl.where(mask_right, right, 0.0)
    deviation = tl.rsqrt((tl.sum(left * left, axis=1) + tl.sum(right * right, axis=1)) / WIDTH + eps)[:, None]
    weight = _parameter(weight_ptr, column_left, mask_left, MASKED)
    shift = _parameter(shift_ptr, column_left, mask_left, MASKED)
    left = left * deviation * weight + shift
    weight = _parameter(weight_ptr, column_right, mask_right, MASKED)
    shift = _parameter(shift_ptr, column_right, mask_right, MASKED)
    right = right * deviation * weight + shift
    _finish(
        out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right,
        sum_ptr.dtype.element_ty, WIDTH, ROUNDED, MASKED, EIGHTS, PAIRS,
    )  # fmt: skip


@triton.jit
def _gelu(h):
    """h Phi(h) as max(h, 0) - |h| Phi(-|h|), with a polynomial for the logarithm of Phi.

    Off by 4e-6 of the result at most where that is above 2e-4, by 1e-9 below: less than the error function in fp32 loses when
    1 is added to it. An infinity becomes NaN.
    """
    a = -tl.abs(h)
    q = tl.fma(a, 1.2994914868613705e-06, 5.277923264657147e-05)
    q = tl.fma(q, a, 0.0008743504295125604)
    q = tl.fma(q, a, 0.0083326306194067)
    q = tl.fma(q, a, 0.05368109047412872)
    q = tl.fma(q, a, -0.4586777985095978)
    q = tl.fma(q, a, 1.1511859893798828)
    q = tl.fma(q, a, -1.0)
    return tl.fma(a, tl.exp2(q), tl.maximum(h, 0.0))


@triton.jit
def _activated(y_ptr, bias_ptr, place, column, mask, BIASED: tl.constexpr, MASKED: tl.constexpr):
    """gelu(y + bias) in fp32."""
    kind = y_ptr.dtype.element_ty
    y = _read(y_ptr, place, mask, MASKED)
    if BIASED:
        y = (y + _parameter(bias_ptr, column, mask, MASKED)).to(kind).to(tl.float32)
    return _gelu(y)


@triton.jit
def _gelu_rows(
    y_ptr, bias_ptr, out_ptr, scale_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr,
    ROUNDED: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    inside = row < rows
    mask_left, mask_right = inside & (column_left < WIDTH), inside & (column_right < WIDTH)
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    left = _activated(y_ptr, bias_ptr, place_left, column_left, mask_left, BIASED, MASKED)
    right = _activated(y_ptr, bias_ptr, place_right, column_right, mask_right, BIASED, MASKED)
    _finish(
        out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right,
        y_ptr.dtype.element_ty, WIDTH, ROUNDED, MASKED, EIGHTS, PAIRS,
    )  # fmt: skip


@triton.jit
def _round_rows(
    x_ptr, out_ptr, scale_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    inside = row < rows
    mask_left, mask_right = inside & (column_left < WIDTH), inside & (column_right < WIDTH)
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    left, right = _read(x_ptr, place_left, mask_left, MASKED), _read(x_ptr, place_right, mask_right, MASKED)
    _write_rounded(
        out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right, WIDTH, MASKED, EIGHTS,
    )  # fmt: skip


def _pieces(rows: int, width: int, launch: Launch) -> dict[str, int | bool]:
    """How a row is cut, and whether anything of it or of a program's rows has to be masked."""
    left = triton.next_power_of_2(width) // 2
    right = triton.next_power_of_2(width - left)
    return {
        "WIDTH": width, "LEFT": left, "RIGHT": right, "ROWS": launch.rows,
        "MASKED": left + right != width or rows % launch.rows != 0, "EIGHTS": left % 8 == 0 and width % 8 == 0,
        "num_warps": launch.warps,
        # Else a product and a sum of 16-bit numbers become one operation, which rounds once where two would.
        "enable_fp_fusion": False,
    }  # fmt: skip


def _pairs(x: torch.Tensor) -> bool:
    """Whether PTX may be written for it: Triton's interpreter, which takes tensors of a CPU, knows none."""
    return x.dtype == torch.bfloat16 and x.device.type != "cpu"


def _results(x: torch.Tensor, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in the type of x or in fp8, and their scales ([..., 1]; no element where rows are not rounded)."""
    out = torch.empty_like(x, dtype=FP8 if rounded else x.dtype)
    return out, torch.empty((*x.shape[:-1], 1) if rounded else (0,), dtype=torch.float32, device=x.device)


def add_norm(
    x: torch.Tensor,
    y: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    rounded: bool,
    launch: Launch = ADD_NORM,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `inference.kernels.vision_rows.add_norm`, of contiguous tensors."""
    total = torch.empty_like(x)
    out, scale = _results(x, rounded)
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    if rows:
        _add_norm[(triton.cdiv(rows, launch.rows),)](
            x, y, gate if bias is None else bias, gate, weight, shift, total, out, scale, rows, eps,
            BIASED=bias is not None, ROUNDED=rounded, PAIRS=_pairs(x), **_pieces(rows, width, launch),
        )  # fmt: skip
    return total, out, scale


def gelu_rows(
    y: torch.Tensor, bias: torch.Tensor | None, rounded: bool, launch: Launch = GELU
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `inference.kernels.vision_rows.gelu_rows`, of contiguous tensors."""
    out, scale = _results(y, rounded)
    width, rows = y.shape[-1], y.numel() // y.shape[-1]
    if rows:
        _gelu_rows[(triton.cdiv(rows, launch.rows),)](
            y, y if bias is None else bias, out, scale, rows,
            BIASED=bias is not None, ROUNDED=rounded, PAIRS=_pairs(y), **_pieces(rows, width, launch),
        )  # fmt: skip
    return out, scale


def round_rows(x: torch.Tensor, launch: Launch = ROUND) -> tuple[torch.Tensor, torch.Tensor]:
    """As `inference.vision.products.quantise_rows`, of a contiguous tensor."""
    out, scale = _results(x, True)
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    if rows:
        _round_rows[(triton.cdiv(rows, launch.rows),)](x, out, scale, rows, **_pieces(rows, width, launch))
    return out, scale
