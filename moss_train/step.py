"""The decoupled step: frames are encoded by all ranks, text is decoded in megatron-core's pipeline, gradients return.

One optimizer step over the micro-batches of this rank's replica:
1. encode: frames of the global batch are dealt over the world, window after window; features come back to the ranks whose
   stage attends;
2. decode: the stock pipeline schedule; features are local leaves, so only hidden states travel between stages;
3. return: leaf gradients go to the ranks that encoded the frames, which backpropagate through the tower. The decoder's
   gradients, complete by then, are summed over replicas before, or meanwhile (`overlap_grad_reduce`).

Losses are summed, never averaged, and the sum is divided once by the global number of targets before its backward pass, so
no result depends on how samples were packed or spread, and no gradient is read again to be divided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func

from data_pipeline.packing.batch import TOKEN_CLASSES, PackedMicroBatch
from model.context_rows import RowShare, share_rows
from model.fp8 import MULTIPLE as FP8_MULTIPLE
from model.loss import sum_losses
from model.rows import PackedRows
from model.upload import upload
from moss_train.engines.models import Models
from moss_train.engines.optimization import Optimization
from moss_train.frames.distribution import FrameDistribution
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.beside import Beside
from moss_train.parallel.layout import ParallelLayout
from moss_train.phases import Phases, mark
from moss_train.signals import Signals
from moss_train.statistics import StepStatistics, StepSums, real_rows


@dataclass(frozen=True)
class StepSettings:
    """Values of a step that come from the run's config."""

    silence_token_weight: float
    silence_id: int | None
    """Token id of silence, whose targets are weighted; None weights nothing."""
    encode: EncodeSettings
    dataset_names: tuple[str, ...]
    overlap_grad_reduce: bool = False


class DecoupledStep:
    """Computes gradients of, or evaluates, next-token prediction on packed micro-batches."""

    def __init__(self, models: Models, optimization: Optimization, layout: ParallelLayout, settings: StepSettings) -> None:
        self._models = models
        self._optimization = optimization
        self._layout = layout
        self._settings = settings
        self.phases = Phases(layout.device)
        self._schedule = get_forward_backward_func()
        config = models.transformer_config
        config.finalize_model_grads_func = self._finalize
        config.no_sync_func = None
        # Delayed scaling takes its scales from past steps, and has none at first: a number of targets that changes, or gradients
        # of a mean in a first step, would fall out of their range.
        self._divides_gradients = config.fp8 is not None and config.fp8_recipe == "delayed"
        self.frames = FrameDistribution(models, layout, settings.encode)
        self._beside = Beside(layout.device, settings.overlap_grad_reduce)

    def accumulate(self, batches: Sequence[PackedMicroBatch], signals: Signals | None = None) -> StepStatistics:
        """Leave in all gradient buffers the gradient of the mean loss over the global batch.

        Args:
            batches: this replica's micro-batches; the same on all its model-parallel ranks, but for the pixels: only those
                of the rank that reads are looked at.
            signals: what this rank tells the others; the statistics tell all ranks.
        """
        self._optimization.zero()
        late = self._divides_gradients
        with self.phases("encode"):
            targets = self._count_targets(batches)
            self.frames.encode(batches, train=True)
        with self.phases("decode"):
            factor = None if late else targets.clamp(min=1).reciprocal()
            sums = self._decode(batches, self._settings.dataset_names, factor)
        with self.phases("return"):
            self.frames.send_back()
            self._optimization.finish_vision(targets if late else None)
            self._beside.join()
        sums.raise_signals(signals or Signals())
        with self.phases("statistics"):
            return sums.reduce(self.frames.encoded_by_rank, self.frames.encoded_again)

    def check(self, batch: PackedMicroBatch) -> None:
        """Look at a micro-batch on the rank that read it: any will do."""

    def evaluate(self, groups: Iterable[Sequence[PackedMicroBatch]], dataset_names: Sequence[str]) -> StepStatistics:
        """Forward passes only.

        Args:
            groups: this replica's micro-batches in groups of one schedule each; every rank gives equally many.
            dataset_names: names of the held-out datasets.
        """
        total = StepSums(dataset_names, self._layout.device)
        encoded = [0] * self._layout.world_size
        with torch.no_grad():
            for batches in groups:
                self.frames.encode(batches, train=False)
                total.vector += self._decode(batches, dataset_names, None, forward_only=True).vector
                encoded = [a + b for a, b in zip(encoded, self.frames.encoded_by_rank, strict=True)]
        return total.reduce(encoded)

    def _finalize(self, chunks: list[torch.nn.Module], targets: torch.Tensor | None = None, **options: Any) -> None:
        """The schedule's own finishing, perhaps beside the return; `targets` are those of this rank's micro-batches."""
        divisor = targets if self._divides_gradients else None
        self._beside.run(lambda: finalize_model_grads(chunks, divisor, **options), divisor)

    def _count_targets(self, batches: Sequence[PackedMicroBatch]) -> torch.Tensor:
        """Targets of the global batch, an int64 scalar on the device, the same on every rank. The host does not wait for it."""
        layout = self._layout
        count = torch.full((), sum(batch.num_targets for batch in batches), dtype=torch.int64, device=layout.device)
        if layout.data_size > 1:
            dist.all_reduce(count, group=layout.data_group)
        return count

    def _decode(
        self, batches: Sequence[PackedMicroBatch], names: Sequence[str], factor: torch.Tensor | None, forward_only: bool = False
    ) -> StepSums:
        """The schedule over all micro-batches; the losses' sum is multiplied by `factor` before its backward pass."""
        sums = StepSums(names, self._layout.device)
        if self._layout.writes_for_replica:
            for batch in batches:
                sums.add_size(real_rows(batch), batch.num_frames)
        shares = self._share_rows([PackedRows.of(batch, self._layout.device) for batch in batches])

        def forward(iterator: Iterator[int], chunk: torch.nn.Module) -> tuple[torch.Tensor, Callable[..., Any]]:
            index = next(iterator)
            with mark("decode chunk"):
                output = chunk(shares[index].rows, self.frames.states[index])
            return output, lambda losses: self._loss(losses, shares[index], batches[index], sums, factor)

        count, virtual = len(batches), len(self._optimization.decoder)
        iterators = [iter(range(count)) for _ in range(virtual)]
        self._schedule(
            forward_step_func=forward,
            data_iterator=iterators if virtual > 1 else iterators[0],
            model=self._optimization.decoder if virtual > 1 else self._optimization.decoder[0],
            num_microbatches=count,
            seq_length=shares[0].rows.num_rows,
            micro_batch_size=1,
            forward_only=forward_only,
        )
        return sums

    def _share_rows(self, rows: Sequence[PackedRows]) -> list[RowShare]:
        """Under context parallelism all micro-batches equally long, and which of their rows are this rank's."""
        sizes, place = self._layout.sizes, self._layout.place
        multiple = sizes.tensor if sizes.sequence_parallel else 1
        if self._models.transformer_config.fp8:
            multiple *= FP8_MULTIPLE
        return share_rows(rows, sizes.context, place.context, multiple)

    def _loss(
        self, losses: torch.Tensor, share: RowShare, batch: PackedMicroBatch, sums: StepSums, factor: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        assert share.targets is not None
        added = sum_losses(
            losses,
            share.targets,
            upload([share.take(batch.token_class, 0)], losses.device)[0],
            num_classes=len(TOKEN_CLASSES),
            silence_id=self._settings.silence_id,
            silence_weight=self._settings.silence_token_weight,
        )
        if self._layout.counts_loss:
            sums.add(added, losses, batch, share)
        return added.total if factor is None else added.total * factor, added.count.int(), {}
