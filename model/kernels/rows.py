"""Functions that kernels over rows are made of: reading and writing pieces, sums, gelu, rounding to fp8.

A row is read as two pieces whose widths are powers of two (1280 = 1024 + 256), so that no lane is idle, and one warp's reads
are 16 bytes a lane. Everything is rounded where separate operations would round.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import triton
import triton.language as tl


class Launch(NamedTuple):
    """How a kernel is launched."""

    rows: int
    """Rows of a program."""
    warps: int


@triton.jit
def read(ptr, place, mask, MASKED: tl.constexpr):
    """Rows that are read once."""
    if MASKED:
        return tl.load(ptr + place, mask=mask, other=0.0).to(tl.float32)
    else:
        return tl.load(ptr + place).to(tl.float32)


@triton.jit
def parameter(ptr, column, mask, MASKED: tl.constexpr):
    """A vector that every row takes."""
    if MASKED:
        return tl.load(ptr + column, mask=mask, other=0.0).to(tl.float32)
    else:
        return tl.load(ptr + column).to(tl.float32)


@triton.jit
def write(ptr, place, value, mask, MASKED: tl.constexpr):
    if MASKED:
        tl.store(ptr + place, value, mask=mask)
    else:
        tl.store(ptr + place, value)


@triton.jit
def rounded_to(x, kind: tl.constexpr, PAIRS: tl.constexpr):
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
def row_maximum(left, right):
    """[ROWS, 1]"""
    largest = tl.maximum(tl.max(tl.abs(left), axis=1), tl.max(tl.abs(right), axis=1))
    return largest[:, None]


@triton.jit
def quotient(x, scale, inverse):
    """x / scale as a division rounds it, where inverse is 1 / scale: one step of Newton's method."""
    near = x * inverse
    return tl.fma(tl.fma(near, -scale, x), inverse, near)


@triton.jit
def power_of_two(largest):
    """`model.vision.fused.scales.power_of_two_scale` of a finite or infinite number."""
    bits = (largest * (1.0 / 448.0)).to(tl.int32, bitcast=True)
    up = ((bits + 0x007FFFFF) & 0x7F800000).to(tl.float32, bitcast=True)
    return tl.where(largest < float("inf"), tl.maximum(up, 7.888609052210118e-31), largest)  # 2 ** -100


@triton.jit
def write_rounded(out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right,
                  WIDTH: tl.constexpr, ROUNDED: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr):  # fmt: skip
    """Rows in fp8 and their scales: any number (ROUNDED 1), or powers of two (2)."""
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    if EIGHTS:  # a lane writes the 8 elements that it read, though it could write 16 at once: they would have to change lanes
        place_left = tl.max_contiguous(tl.multiple_of(place_left, (1, 8)), (1, 8))
        place_right = tl.max_contiguous(tl.multiple_of(place_right, (1, 8)), (1, 8))
    largest = row_maximum(left, right)
    if ROUNDED == 1:
        scale = tl.maximum(largest, 1e-12) * (1.0 / 448.0)  # as torch on a GPU divides by a number
        inverse = tl.div_rn(1.0, scale)
        left, right = quotient(left, scale, inverse), quotient(right, scale, inverse)
    else:
        scale = power_of_two(largest)
        inverse = tl.div_rn(1.0, scale)
        left, right = left * inverse, right * inverse
    kind = out_ptr.dtype.element_ty
    write(out_ptr, place_left, left.to(kind), mask_left, MASKED)
    write(out_ptr, place_right, right.to(kind), mask_right, MASKED)
    write(scale_ptr, row, scale, inside, MASKED)


@triton.jit
def finish(
    plain_ptr, out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right,
    kind: tl.constexpr, WIDTH: tl.constexpr, PLAIN: tl.constexpr, ROUNDED: tl.constexpr, MASKED: tl.constexpr,
    EIGHTS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Writes rows in their type, or these rounded once more to fp8, or both."""
    if PLAIN:
        write(plain_ptr, row * WIDTH + column_left, left.to(kind), mask_left, MASKED)
        write(plain_ptr, row * WIDTH + column_right, right.to(kind), mask_right, MASKED)
    if ROUNDED > 0:
        write_rounded(
            out_ptr, scale_ptr, row, column_left, column_right, rounded_to(left, kind, PAIRS), rounded_to(right, kind, PAIRS),
            inside, mask_left, mask_right, WIDTH, ROUNDED, MASKED, EIGHTS,
        )  # fmt: skip


@triton.jit
def added(
    x_ptr, y_ptr, bias_ptr, sum_ptr, gate, place, column, mask,
    ADDED: tl.constexpr, BIASED: tl.constexpr, GATED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """x + gate * (y + bias), which is also written; x itself where nothing is ADDED. fp32."""
    x = read(x_ptr, place, mask, MASKED)
    if ADDED:
        kind = sum_ptr.dtype.element_ty
        y = read(y_ptr, place, mask, MASKED)
        if BIASED:
            y = (y + parameter(bias_ptr, column, mask, MASKED)).to(kind).to(tl.float32)
        if GATED:
            y = (gate * y).to(kind).to(tl.float32)
        total = (x + y).to(kind)
        write(sum_ptr, place, total, mask, MASKED)
        x = total.to(tl.float32)
    return x


@triton.jit
def log2_tail(a):
    """log2 Phi(a) of a <= 0, as a polynomial."""
    q = tl.fma(a, 1.2994914868613705e-06, 5.277923264657147e-05)
    q = tl.fma(q, a, 0.0008743504295125604)
    q = tl.fma(q, a, 0.0083326306194067)
    q = tl.fma(q, a, 0.05368109047412872)
    q = tl.fma(q, a, -0.4586777985095978)
    q = tl.fma(q, a, 1.1511859893798828)
    return tl.fma(q, a, -1.0)


@triton.jit
def gelu(h):
    """h Phi(h) as max(h, 0) - |h| Phi(-|h|).

    Off by 4e-6 of the result at most where that is above 2e-4, by 1e-9 below: less than the error function in fp32 loses when
    1 is added to it. An infinity becomes NaN.
    """
    a = -tl.abs(h)
    return tl.fma(a, tl.exp2(log2_tail(a)), tl.maximum(h, 0.0))


@triton.jit
def gelu_slope(h):
    """(h Phi(h), Phi(h) + h phi(h)): gelu and its derivative, with the polynomial of `gelu`."""
    a = -tl.abs(h)
    tail = tl.exp2(log2_tail(a))
    below = tl.where(h < 0.0, tail, 1.0 - tail)
    density = 0.3989422804014327 * tl.exp2(h * h * -0.7213475204444817)
    return tl.fma(a, tail, tl.maximum(h, 0.0)), tl.fma(h, density, below)


@triton.jit
def activated(y_ptr, bias_ptr, place, column, mask, BIASED: tl.constexpr, MASKED: tl.constexpr):
    """gelu(y + bias) in fp32."""
    kind = y_ptr.dtype.element_ty
    y = read(y_ptr, place, mask, MASKED)
    if BIASED:
        y = (y + parameter(bias_ptr, column, mask, MASKED)).to(kind).to(tl.float32)
    return gelu(y)


def pieces(rows: int, width: int, launch: Launch) -> dict[str, int | bool]:
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


def pairs(x: torch.Tensor) -> bool:
    """Whether PTX may be written for it: Triton's interpreter, which takes tensors of a CPU, knows none."""
    return x.dtype == torch.bfloat16 and x.device.type != "cpu"


class Rows(NamedTuple):
    """Rows that a kernel writes."""

    plain: torch.Tensor
    """[..., width] in the dtype of the operand, or no element."""
    rounded: torch.Tensor
    """float8_e4m3fn [..., width], or no element."""
    scale: torch.Tensor
    """fp32 [..., 1], or no element: a value is the fp8 number times its row's scale."""


Scales = Literal["any", "powers"]
"""Scales of fp8 rows: their largest value over 448, or the next power of two."""


def results(x: torch.Tensor, scales: Scales | None, plain: bool) -> tuple[Rows, dict[str, int | bool]]:
    """Memory for rows like x, and the constants that say what is written."""
    if scales is None:
        plain = True
    found = Rows(
        x.new_empty(x.shape if plain else 0),
        x.new_empty(0 if scales is None else x.shape, dtype=torch.float8_e4m3fn),
        x.new_empty(0 if scales is None else (*x.shape[:-1], 1), dtype=torch.float32),
    )
    return found, {"PLAIN": plain, "ROUNDED": 0 if scales is None else 1 + (scales == "powers")}
