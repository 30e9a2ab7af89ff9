"""A step of the DeepSpeed engine: every rank encodes and decodes the micro-batches that it read, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist

from data_pipeline.packing.batch import TOKEN_CLASSES, PackedMicroBatch
from model.context_rows import RowShare
from model.loss import LossSums, sum_losses
from model.rows import PackedRows
from moss_train.engines.deepspeed.idle import Calls, add_idle, pixels_of, plan_calls
from moss_train.engines.deepspeed.optimization import DeepSpeedOptimization
from moss_train.engines.models import Models
from moss_train.parallel.layout import ParallelLayout
from moss_train.phases import Phases
from moss_train.signals import Signals
from moss_train.statistics import StepStatistics, StepSums, real_rows
from moss_train.step import StepSettings


class DeepSpeedStep:
    """Computes gradients of, or evaluates, next-token prediction on packed micro-batches.

    The loss of a rank's micro-batches is summed, times ranks / targets of the global batch: DeepSpeed's average over the
    ranks then is the gradient of the mean over all targets, as in the other engine.
    """

    def __init__(
        self, models: Models, optimization: DeepSpeedOptimization, layout: ParallelLayout, settings: StepSettings
    ) -> None:
        self._models = models
        self._optimization = optimization
        self._engine = optimization.engine
        self._layout = layout
        self._settings = settings
        self.phases = Phases(layout.device)

    def accumulate(self, batches: Sequence[PackedMicroBatch], signals: Signals | None = None) -> StepStatistics:
        """Leave with the optimizer the reduced gradient of the mean loss over the global batch.

        Args:
            batches: this rank's micro-batches, equally many on all ranks.
            signals: what this rank tells the others; the statistics tell all ranks.
        """
        self._optimization.zero()
        self._engine.train()
        calls, targets, frames = self._agree(batches)
        sums = StepSums(self._settings.dataset_names, self._layout.device)
        factor = self._layout.world_size / max(targets, 1)
        for index, batch in enumerate(batches):
            self._engine.set_gradient_accumulation_boundary(index == len(batches) - 1)
            with self.phases("forward"):
                added = self._forward(batch, calls[index], sums)
            with self.phases("backward"):
                self._engine.backward(added.total * factor, scale_wrt_gas=False)
        sums.raise_signals(signals or Signals())
        with self.phases("statistics"):
            return sums.reduce(frames)

    def check(self, batch: PackedMicroBatch) -> None:
        """Look at a micro-batch on the rank that read it: any will do."""

    def evaluate(self, groups: Iterable[Sequence[PackedMicroBatch]], dataset_names: Sequence[str]) -> StepStatistics:
        """Forward passes only; `groups` as in the decoupled step."""
        self._engine.eval()
        total = StepSums(dataset_names, self._layout.device)
        encoded = [0] * self._layout.world_size
        with torch.no_grad():
            for batches in groups:
                calls, _, frames = self._agree(batches)
                encoded = [a + b for a, b in zip(encoded, frames, strict=True)]
                for batch, call in zip(batches, calls, strict=True):
                    self._forward(batch, call, total)
        return total.reduce(encoded)

    def _agree(self, batches: Sequence[PackedMicroBatch]) -> tuple[list[Calls], int, list[int]]:
        """Calls of the tower by micro-batch, targets of the global batch, frames by rank: one small gather."""
        own = [sum(batch.num_targets for batch in batches), *(batch.num_frames for batch in batches)]
        mine = torch.tensor(own, dtype=torch.int64, device=self._layout.device)
        every = mine.new_empty(self._layout.world_size * len(own))
        dist.all_gather_into_tensor(every, mine)
        rows: list[list[int]] = every.view(-1, len(own)).tolist()
        frames = [row[1:] for row in rows]
        calls = plan_calls(frames, self._layout.rank, self._settings.encode.chunk)
        return calls, sum(row[0] for row in rows), [sum(counts) for counts in frames]

    def _forward(self, batch: PackedMicroBatch, calls: Calls, sums: StepSums) -> LossSums:
        """The loss of one micro-batch, entered in the sums."""
        device = self._layout.device
        rows = PackedRows.of(batch, device)
        given = add_idle(rows, calls.idle, self._models.config.image_token_id)
        pixels, ids = pixels_of(batch, calls.idle, device) if calls.tower else (None, None)
        losses = self._engine(given, pixels, ids, calls.tower)[: rows.num_rows]
        assert rows.targets is not None
        added = sum_losses(
            losses,
            rows.targets,
            batch.token_class.to(device),
            num_classes=len(TOKEN_CLASSES),
            silence_id=self._settings.silence_id,
            silence_weight=self._settings.silence_token_weight,
        )
        sums.add(added, losses, batch, RowShare(rows, rows.targets))
        sums.add_size(real_rows(batch), batch.num_frames)
        return added
