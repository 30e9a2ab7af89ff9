"""Sums of one step over all ranks: loss by token class and by dataset, tokens, frames. One small all-reduce."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from data_pipeline.packing.batch import IGNORE_INDEX, TOKEN_CLASSES, PackedMicroBatch
from model.context_rows import RowShare
from model.loss import LossSums
from model.upload import upload
from moss_train.signals import SIGNALS, Signals

_SUMS = 4  # weighted sum, targets, rows, frames
_HEAD = _SUMS + SIGNALS  # slots before the sums by class


@dataclass
class StepStatistics:
    """Global figures of one step."""

    loss: float
    """Weighted sum of the targets' losses divided by the number of targets."""
    targets: int
    class_loss: dict[str, float]
    """Mean unweighted loss of the targets of each token class that occurred."""
    dataset_loss: dict[str, float]
    """Mean unweighted loss by dataset name."""
    tokens: int
    """Rows of real samples, frames included."""
    frames: int
    encoded_by_rank: list[int] = field(default_factory=list)
    """Frames of the first encoding pass, by rank."""
    encoded_again: int = 0
    """Frames that this rank encoded a second time for the backward pass."""
    dataset_targets: dict[str, int] = field(default_factory=dict)
    """Targets by dataset name, also of datasets that gave none."""
    accuracy: float | None = None
    """Share of right patches; only for the dense objective."""
    signals: Signals = field(default_factory=Signals)
    """How many ranks raised each signal."""


class StepSums:
    """Adds up micro-batches on one rank.

    Layout of the vector: weighted sum, targets, rows, frames; the signals; then sums and counts by class and by dataset.
    """

    def __init__(self, dataset_names: Sequence[str], device: torch.device) -> None:
        self.names = list(dataset_names)
        self._classes, self._datasets = len(TOKEN_CLASSES), len(self.names) + 1  # the last slot is padding
        self.vector = torch.zeros(_HEAD + 2 * (self._classes + self._datasets), dtype=torch.float64, device=device)

    def row_groups(self, batch: PackedMicroBatch) -> torch.Tensor:
        """Slot of each row, int64 [T]: its dataset's index, or the padding slot."""
        index = torch.tensor(batch.dataset_index, dtype=torch.int64)
        index = torch.where(index < 0, self._datasets - 1, index)
        return torch.repeat_interleave(index, batch.cu_seqlens.long().diff().cpu())

    def add(self, sums: LossSums, losses: torch.Tensor, batch: PackedMicroBatch, share: RowShare) -> None:
        """Add one micro-batch on the rank that counts its loss.

        Args:
            sums: the micro-batch's sums; `total` is what is differentiated.
            losses: unweighted loss of every row of this rank, fp32; 0 where the row has no target.
            batch: the micro-batch.
            share: which rows are this rank's.
        """
        assert share.targets is not None
        counted = share.targets != IGNORE_INDEX
        (groups,) = upload([share.take(self.row_groups(batch), self._datasets - 1)], losses.device)
        vector, begin = self.vector, _HEAD + 2 * self._classes
        vector[0] += sums.total.detach()
        vector[1] += sums.count
        vector[_HEAD : _HEAD + self._classes] += sums.class_sums
        vector[_HEAD + self._classes : begin] += sums.class_counts
        vector[begin : begin + self._datasets].index_add_(0, groups, losses.detach().double() * counted)
        vector[begin + self._datasets :].index_add_(0, groups, counted.double())

    def add_size(self, tokens: int, frames: int) -> None:
        """Count the rows and frames of a micro-batch, on one rank of the replica."""
        self.vector[2] += tokens
        self.vector[3] += frames

    def raise_signals(self, signals: Signals) -> None:
        """What this rank tells the others; after the reduction all ranks know it in the same step."""
        for place, value in enumerate(signals.values(), start=_SUMS):
            self.vector[place] += value

    def reduce(self, encoded_by_rank: list[int], encoded_again: int = 0) -> StepStatistics:
        """Sum over the world; every rank gets the same figures."""
        if dist.get_world_size() > 1:
            dist.all_reduce(self.vector)
        values = self.vector.tolist()
        split = _HEAD + 2 * self._classes
        return StepStatistics(
            loss=values[0] / max(values[1], 1.0),
            targets=int(values[1]),
            class_loss=_means(TOKEN_CLASSES, values[_HEAD:split]),
            dataset_loss=_means(self.names, values[split : split + len(self.names)] + values[split + self._datasets : -1]),
            dataset_targets=dict(zip(self.names, map(int, values[split + self._datasets : -1]), strict=True)),
            tokens=int(values[2]),
            frames=int(values[3]),
            encoded_by_rank=encoded_by_rank,
            encoded_again=encoded_again,
            signals=Signals.of(values[_SUMS:_HEAD]),
        )


def real_rows(batch: PackedMicroBatch) -> int:
    """Rows that belong to samples, padding left out."""
    lengths = batch.cu_seqlens.diff().tolist()
    return sum(n for n, index in zip(lengths, batch.dataset_index, strict=True) if index >= 0)


def _means(names: Sequence[str], sums_and_counts: list[float]) -> dict[str, float]:
    sums, counts = sums_and_counts[: len(names)], sums_and_counts[len(names) :]
    return {name: total / count for name, total, count in zip(names, sums, counts, strict=True) if count > 0}
