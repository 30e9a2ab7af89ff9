"""Softmax over rows of logits in one pass: what a cross-entropy needs of them, and its gradient in their place.

A row may be one rank's share of a vocabulary that is spread over several; the statistics of the shares add up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.kernels.select import Form, choose_form

NOT_HERE = -1
"""In place of a target that is no column of these rows."""
_TYPES = (torch.bfloat16, torch.float16)


def _form(logits: Tensor, form: Form | None) -> Form:
    if form is None and logits.dtype not in _TYPES:
        return "torch"
    return choose_form(logits.device, form)


def row_statistics(logits: Tensor, targets: Tensor, columns: int, *, form: Form | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of exponentials, in fp32.

    Args:
        logits: [N, V], rows contiguous.
        targets: int64 [N], columns below `columns`, or `NOT_HERE`.
        columns: how many of the V columns count, from the first; those behind them are padding.
        form: overrides the choice by device.

    Returns:
        Each fp32 [N]: the largest logit (minus infinity without columns), the sum of exp(logit - largest), the target's logit (0
        where it is not here).
    """
    if _form(logits, form) == "triton":
        from model.kernels.logit_rows_triton import row_statistics as launch

        return launch(logits, targets, columns)
    valid = logits[:, :columns].float()
    here = targets != NOT_HERE
    if columns == 0:
        nothing = torch.zeros(len(logits), device=logits.device)
        return nothing - torch.inf, nothing, nothing.clone()
    largest = valid.amax(1)
    total = (valid - largest[:, None]).exp().sum(1)
    wanted = valid.gather(1, targets.clamp(min=0)[:, None])[:, 0]
    return largest, total, torch.where(here, wanted, torch.zeros_like(wanted))


def softmax_gradient_(
    logits: Tensor, targets: Tensor, log_total: Tensor, factor: Tensor, columns: int, *, form: Form | None = None
) -> Tensor:
    """Puts the gradient of the losses in the place of the logits.

    Args:
        logits: [N, V], overwritten by factor * (softmax - one at the target), 0 in padding columns.
        targets: as for `row_statistics`.
        log_total: fp32 [N], logarithm of the sum of exponentials over the whole vocabulary.
        factor: fp32 [N], the derivative by each row's loss.
        columns: as for `row_statistics`.
        form: overrides the choice by device.

    Returns:
        The logits' tensor.
    """
    if _form(logits, form) == "triton":
        from model.kernels.logit_rows_triton import softmax_gradient_ as launch

        return launch(logits, targets, log_total, factor, columns)
    share = (logits[:, :columns].float() - log_total[:, None]).exp()
    here = targets != NOT_HERE
    if columns:
        share.scatter_add_(1, targets.clamp(min=0)[:, None], -here.to(share.dtype)[:, None])
    return logits.copy_(F.pad(share * factor[:, None], (0, logits.shape[1] - columns)))
