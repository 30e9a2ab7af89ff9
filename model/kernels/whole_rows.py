"""What lies between the matrix products of the vision tower: one pass over rows that a program holds in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from model.kernels.rows import (
    Launch,
    Rows,
    Scales,
    activated,
    added,
    finish,
    pairs,
    parameter,
    pieces,
    read,
    results,
    write,
    write_rounded,
)

ADD_NORM = Launch(rows=1, warps=1)
GELU = Launch(rows=1, warps=4)
ROUND = Launch(rows=1, warps=1)
ROUND_LONG = Launch(rows=1, warps=4)
"""Of rows of more than 2048 numbers."""


@triton.jit
def _add_norm(
    x_ptr, y_ptr, bias_ptr, gate_ptr, weight_ptr, shift_ptr, sum_ptr, plain_ptr, out_ptr, scale_ptr, mean_ptr, rstd_ptr,
    rows, eps,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, ADDED: tl.constexpr, BIASED: tl.constexpr,
    GATED: tl.constexpr, GIVEN: tl.constexpr, TOLD: tl.constexpr, PLAIN: tl.constexpr, ROUNDED: tl.constexpr,
    MASKED: tl.constexpr, EIGHTS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    inside = row < rows
    mask_left, mask_right = inside & (column_left < WIDTH), inside & (column_right < WIDTH)
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    gate = tl.load(gate_ptr).to(tl.float32) if GATED else 1.0
    left = added(x_ptr, y_ptr, bias_ptr, sum_ptr, gate, place_left, column_left, mask_left, ADDED, BIASED, GATED, MASKED)
    right = added(x_ptr, y_ptr, bias_ptr, sum_ptr, gate, place_right, column_right, mask_right, ADDED, BIASED, GATED, MASKED)
    if GIVEN:
        mean, deviation = read(mean_ptr, row, inside, MASKED), read(rstd_ptr, row, inside, MASKED)
        left -= mean
        right -= mean
    else:
        mean = ((tl.sum(left, axis=1) + tl.sum(right, axis=1)) / WIDTH)[:, None]
        left -= mean
        right -= mean
        if MASKED:
            right = tl.where(mask_right, right, 0.0)
        deviation = tl.rsqrt((tl.sum(left * left, axis=1) + tl.sum(right * right, axis=1)) / WIDTH + eps)[:, None]
    if TOLD:
        write(mean_ptr, row, mean, inside, MASKED)
        write(rstd_ptr, row, deviation, inside, MASKED)
    weight = parameter(weight_ptr, column_left, mask_left, MASKED)
    shift = parameter(shift_ptr, column_left, mask_left, MASKED)
    left = left * deviation * weight + shift
    weight = parameter(weight_ptr, column_right, mask_right, MASKED)
    shift = parameter(shift_ptr, column_right, mask_right, MASKED)
    right = right * deviation * weight + shift
    finish(
        plain_ptr, out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right,
        x_ptr.dtype.element_ty, WIDTH, PLAIN, ROUNDED, MASKED, EIGHTS, PAIRS,
    )  # fmt: skip


@triton.jit
def _gelu_rows(
    y_ptr, bias_ptr, plain_ptr, out_ptr, scale_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr,
    PLAIN: tl.constexpr, ROUNDED: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    inside = row < rows
    mask_left, mask_right = inside & (column_left < WIDTH), inside & (column_right < WIDTH)
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    left = activated(y_ptr, bias_ptr, place_left, column_left, mask_left, BIASED, MASKED)
    right = activated(y_ptr, bias_ptr, place_right, column_right, mask_right, BIASED, MASKED)
    finish(
        plain_ptr, out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right,
        y_ptr.dtype.element_ty, WIDTH, PLAIN, ROUNDED, MASKED, EIGHTS, PAIRS,
    )  # fmt: skip


@triton.jit
def _round_rows(
    x_ptr, out_ptr, scale_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, ROUNDED: tl.constexpr,
    MASKED: tl.constexpr, EIGHTS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    inside = row < rows
    mask_left, mask_right = inside & (column_left < WIDTH), inside & (column_right < WIDTH)
    place_left, place_right = row * WIDTH + column_left, row * WIDTH + column_right
    left, right = read(x_ptr, place_left, mask_left, MASKED), read(x_ptr, place_right, mask_right, MASKED)
    write_rounded(
        out_ptr, scale_ptr, row, column_left, column_right, left, right, inside, mask_left, mask_right, WIDTH,
        ROUNDED, MASKED, EIGHTS,
    )  # fmt: skip


def norm_rows(
    x: torch.Tensor,
    y: torch.Tensor | None,
    bias: torch.Tensor | None,
    gate: torch.Tensor | None,
    weight: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    scales: Scales | None = None,
    *,
    told: bool = False,
    launch: Launch = ADD_NORM,
) -> tuple[torch.Tensor, Rows, torch.Tensor, torch.Tensor]:
    """The LayerNorm of x + gate * (y + bias), of contiguous tensors.

    Args:
        x: [..., D].
        y: [..., D], if something is to be added.
        bias: [D] of y, if it has one.
        gate: [1], if y has one.
        weight, shift: [D].
        eps: added to the variance.
        scales: for a norm in fp8.
        told: statistics are wanted.
        launch: how it is launched.

    Returns:
        The sum [..., D] (x itself if nothing was added), its norm, and of every row its mean and one over its standard
        deviation, fp32 [rows] each (no element unless wanted).
    """
    total = x if y is None else torch.empty_like(x)
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    out, wanted = results(x, scales, plain=False)
    mean, rstd = torch.empty((2, rows if told else 0), dtype=torch.float32, device=x.device)
    if rows:
        _add_norm[(triton.cdiv(rows, launch.rows),)](
            x, x if y is None else y, weight if bias is None else bias, weight if gate is None else gate, weight, shift, total,
            *out, mean, rstd, rows, eps, ADDED=y is not None, BIASED=bias is not None, GATED=gate is not None, GIVEN=False,
            TOLD=told, PAIRS=pairs(x), **wanted, **pieces(rows, width, launch),
        )  # fmt: skip
    return total, out, mean, rstd


def norm_again(
    x: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    scales: Scales | None = None,
    *,
    plain: bool = False,
    launch: Launch = ADD_NORM,
) -> Rows:
    """The norm of contiguous x [..., D] from its statistics, as `norm_rows` gave it; `plain`: beside fp8."""
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    out, wanted = results(x, scales, plain)
    if rows:
        _add_norm[(triton.cdiv(rows, launch.rows),)](
            x, x, weight, weight, weight, shift, x, *out, mean, rstd, rows, 0.0, ADDED=False, BIASED=False, GATED=False,
            GIVEN=True, TOLD=False, PAIRS=pairs(x), **wanted, **pieces(rows, width, launch),
        )  # fmt: skip
    return out


def gelu_rows(y: torch.Tensor, bias: torch.Tensor | None, scales: Scales | None = None, launch: Launch = GELU) -> Rows:
    """gelu(y + bias) of contiguous y [..., n] and bias [n], in fp8 with these scales or in the dtype of y."""
    width, rows = y.shape[-1], y.numel() // y.shape[-1]
    out, wanted = results(y, scales, plain=False)
    if rows:
        _gelu_rows[(triton.cdiv(rows, launch.rows),)](
            y, y if bias is None else bias, *out, rows, BIASED=bias is not None, PAIRS=pairs(y), **wanted,
            **pieces(rows, width, launch),
        )  # fmt: skip
    return out


def round_rows(x: torch.Tensor, scales: Scales, launch: Launch | None = None) -> Rows:
    """Contiguous x [..., n] in fp8."""
    launch = launch or (ROUND if x.shape[-1] <= 2048 else ROUND_LONG)
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    out, wanted = results(x, scales, plain=False)
    if rows:
        _round_rows[(triton.cdiv(rows, launch.rows),)](
            x, out.rounded, out.scale, rows, ROUNDED=wanted["ROUNDED"], **pieces(rows, width, launch)
        )
    return out
