"""Cross-entropy over a vocabulary that is split between ranks, and its sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from torch import Tensor
from torch.distributed import ProcessGroup

from model.rows import IGNORE_INDEX


def mask_padded_columns(logits: Tensor, vocab_size: int, tp_rank: int) -> Tensor:
    """Takes the head's padding rows out of every softmax: their logits [..., columns of this rank] become minus infinity."""
    columns = logits.shape[-1]
    valid = min(max(vocab_size - tp_rank * columns, 0), columns)
    if valid == columns:
        return logits
    padded = torch.arange(columns, device=logits.device) >= valid
    return logits.masked_fill(padded, torch.finfo(logits.dtype).min)


def row_losses(logits: Tensor, targets: Tensor, tp_group: ProcessGroup) -> Tensor:
    """Cross-entropy of every row.

    Args:
        logits: [T, columns of this rank].
        targets: int64 [T]; -100 where ignored.
        tp_group: the ranks that share the vocabulary.

    Returns:
        fp32 [T]; rows without a target hold 0.
    """
    logits = logits.float()
    if tp_group.size() == 1:
        return F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="none")
    losses: Tensor = tensor_parallel.vocab_parallel_cross_entropy(logits[:, None].contiguous(), targets[:, None])
    return losses[:, 0].masked_fill(targets == IGNORE_INDEX, 0.0)


@dataclass
class LossSums:
    """What a micro-batch adds to the loss and to its log."""

    total: Tensor
    """fp32 scalar with gradient: sum of the weighted losses."""
    count: Tensor
    """int64 scalar: rows with a target, whatever their weight."""
    class_sums: Tensor
    """fp32 [classes]: unweighted loss by class of the target."""
    class_counts: Tensor
    """int64 [classes]"""


def sum_losses(
    losses: Tensor, targets: Tensor, token_class: Tensor | None = None, *,
    num_classes: int = 4, silence_id: int | None = None, silence_weight: float = 1.0,
) -> LossSums:  # fmt: skip
    """Sums the rows' losses; silence targets weigh `silence_weight` in the sum and 1 in the count.

    Args:
        losses: fp32 [T] from the decoder.
        targets: int64 [T]; -100 where ignored.
        token_class: integer [T], class of the target, for the sums by class; None counts all targets as class 1.
        num_classes: classes in the log.
        silence_id: the token whose targets are weighted; None weights nothing.
    """
    counted = targets != IGNORE_INDEX
    weighted = losses
    if silence_id is not None and silence_weight != 1.0:
        weighted = torch.where(targets == silence_id, losses * silence_weight, losses)
    classes = counted.long() if token_class is None else token_class.long() * counted
    class_counts = torch.zeros(num_classes, dtype=torch.int64, device=losses.device)
    class_sums = torch.zeros(num_classes, dtype=torch.float32, device=losses.device)
    return LossSums(
        total=torch.where(counted, weighted, torch.zeros_like(weighted)).sum(),
        count=counted.sum(),
        class_sums=class_sums.index_add_(0, classes, torch.where(counted, losses.detach(), torch.zeros_like(losses))),
        class_counts=class_counts.index_add_(0, classes, counted.long()),
    )
