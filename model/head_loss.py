"""The head and its cross-entropy together, in pieces of rows: logits of all rows never exist at once.

A head of 128,256 rows turns 4,096 hidden states into 1.05 GB of bf16 logits, and a cross-entropy in plain torch makes fp32
copies, log-probabilities and two gradients of them: 40 bytes a logit are moved. Here a piece's logits are read once for
the losses and turned into their gradient in place for the backward pass; where they are not kept, the backward pass
multiplies again. The vocabulary may be spread over tensor-parallel ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from model.kernels.accumulate import add_product, main_grad, transposed_product
from model.kernels.logit_rows import NOT_HERE, row_statistics, softmax_gradient_
from model.rows import IGNORE_INDEX

GIB = 2**30


@dataclass(frozen=True)
class HeadLoss:
    """How the losses of a head's rows are computed."""

    vocab_size: int
    """Columns of the whole vocabulary, without padding."""
    kept_bytes: float
    """Logits of a micro-batch that stay until its backward pass; those of further pieces are computed again."""
    piece: int = 2048
    """Rows whose logits exist at once."""

    def __call__(self, hidden: Tensor, weight: Tensor, targets: Tensor, group: ProcessGroup) -> Tensor:
        """Cross-entropy of every row.

        Args:
            hidden: [N, H], the same on all ranks of the group; its gradient is this rank's part of a sum over them.
            weight: [columns of this rank, H]. If it has a `main_grad`, its gradient goes there.
            targets: int64 [N]; -100 where ignored.
            group: the ranks that share the vocabulary.

        Returns:
            fp32 [N]; rows without a target hold 0.
        """
        # Inside a Function autograd is off, and inputs ask for gradients whether or not anybody computes them.
        settings = self if torch.is_grad_enabled() else replace(self, kept_bytes=0.0)
        losses: Tensor = _HeadLoss.apply(hidden, weight, targets, settings, group)  # type: ignore[no-untyped-call]
        return losses


def _share(targets: Tensor, settings: HeadLoss, columns: int, rank: int) -> tuple[Tensor, int]:
    """Targets as columns of this rank, `NOT_HERE` elsewhere, and how many of its columns are no padding."""
    first = rank * columns
    valid = min(max(settings.vocab_size - first, 0), columns)
    here = (targets >= first) & (targets < first + valid)
    return torch.where(here, targets - first, torch.full_like(targets, NOT_HERE)), valid


def _log_totals(largest: Tensor, total: Tensor, wanted: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
    """Logarithms of the sums of exponentials, and the targets' logits, over the whole vocabulary; [N] each."""
    if group.size() > 1:
        everywhere = largest.clone()
        dist.all_reduce(everywhere, op=dist.ReduceOp.MAX, group=group)
        sums = torch.stack([total * (largest - everywhere).exp(), wanted])  # [2, N]
        dist.all_reduce(sums, group=group)
        largest, (total, wanted) = everywhere, sums
    return largest + total.log(), wanted


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, settings: HeadLoss, group: ProcessGroup
    ) -> Tensor:  # fmt: skip
        own, valid = _share(targets, settings, weight.shape[0], group.rank())
        needed = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        kept: list[Tensor] = []
        room = settings.kept_bytes if needed else 0.0
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for begin in range(0, len(hidden), settings.piece):
            end = begin + settings.piece
            logits = torch.mm(hidden[begin:end], weight.t())  # [rows, columns]
            parts.append(row_statistics(logits, own[begin:end], valid))
            room -= logits.numel() * logits.element_size()
            if room >= 0:
                kept.append(logits)
            del logits
        largest, total, wanted = (torch.cat(part) for part in zip(*parts, strict=True))
        log_total, wanted = _log_totals(largest, total, wanted, group)
        ctx.save_for_backward(hidden, weight, targets, own, log_total)
        ctx.kept, ctx.valid, ctx.settings = kept, valid, settings
        ctx.weight = weight  # a saved tensor comes back without its main_grad
        return (log_total - wanted).masked_fill(targets == IGNORE_INDEX, 0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, targets, own, log_total = ctx.saved_tensors
        factor = gradients[0].float().masked_fill(targets == IGNORE_INDEX, 0.0)
        piece = ctx.settings.piece
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        main = main_grad(ctx.weight)
        to_weight: Tensor | None = None
        for begin in range(0, len(hidden), piece):
            rows = slice(begin, begin + piece)
            logits = ctx.kept.pop(0) if ctx.kept else torch.mm(hidden[rows], weight.t())
            softmax_gradient_(logits, own[rows], log_total[rows], factor[rows], ctx.valid)
            if to_hidden is not None:
                torch.mm(logits, weight, out=to_hidden[rows])
            if ctx.needs_input_grad[1] and main is not None:
                add_product(logits, hidden[rows], main)
            elif ctx.needs_input_grad[1]:
                product = transposed_product(logits, hidden[rows], wide=len(hidden) > piece)
                to_weight = product if to_weight is None else to_weight.add_(product)
            del logits
        return to_hidden, None if to_weight is None else to_weight.to(weight.dtype), None, None, None
