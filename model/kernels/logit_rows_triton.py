"""`model.kernels.logit_rows` as Triton kernels: a program walks along one row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.select import launching_on

BLOCK = 4096
WARPS = 8


@triton.jit
def _row_statistics(
    logits_ptr, targets_ptr, largest_ptr, total_ptr, wanted_ptr, columns, stride, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    base = logits_ptr + row * stride
    # Every lane keeps its own largest and sum: one reduction at the end instead of one a block.
    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, columns, BLOCK):
        place = begin + tl.arange(0, BLOCK)
        x = tl.load(base + place, mask=place < columns, other=float("-inf")).to(tl.float32)
        new = tl.maximum(largest, x)
        safe = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(largest - safe) + tl.exp(x - safe)
        largest = new
    most = tl.max(largest, axis=0)
    safe = tl.where(most == float("-inf"), 0.0, most)
    tl.store(largest_ptr + row, most)
    tl.store(total_ptr + row, tl.sum(total * tl.exp(largest - safe), axis=0))
    target = tl.load(targets_ptr + row)
    wanted = tl.load(base + tl.maximum(target, 0)).to(tl.float32)
    tl.store(wanted_ptr + row, tl.where(target >= 0, wanted, 0.0))


@triton.jit
def _softmax_gradient(
    logits_ptr, targets_ptr, log_total_ptr, factor_ptr, columns, width, stride, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    pointers = logits_ptr + row * stride + place
    x = tl.load(pointers, mask=place < columns, other=float("-inf")).to(tl.float32)
    target, log_total, factor = tl.load(targets_ptr + row), tl.load(log_total_ptr + row), tl.load(factor_ptr + row)
    share = tl.exp(x - log_total) - tl.where(place == target, 1.0, 0.0)
    share = tl.where(place < columns, share * factor, 0.0)
    tl.store(pointers, share.to(logits_ptr.dtype.element_ty), mask=place < width)


def row_statistics(logits: Tensor, targets: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `model.kernels.logit_rows.row_statistics`."""
    largest, total, wanted = (torch.empty(len(logits), dtype=torch.float32, device=logits.device) for _ in range(3))
    if len(logits):
        with launching_on(logits.device):
            _row_statistics[(len(logits),)](
                logits, targets, largest, total, wanted, columns, logits.stride(0), BLOCK=BLOCK, num_warps=WARPS
            )
    return largest, total, wanted


def softmax_gradient_(logits: Tensor, targets: Tensor, log_total: Tensor, factor: Tensor, columns: int) -> Tensor:
    """As `model.kernels.logit_rows.softmax_gradient_`."""
    width = logits.shape[1]
    if len(logits):
        with launching_on(logits.device):
            _softmax_gradient[(triton.cdiv(width, BLOCK), len(logits))](
                logits, targets, log_total, factor, columns, width, logits.stride(0), BLOCK=BLOCK, num_warps=WARPS
            )
    return logits
