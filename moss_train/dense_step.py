"""The warm start's objective: tell every patch's class and place from the tower's features. The decoder takes no part.

A patch's place is the pooled cell that it lies in. Without it a tower that starts at random learns to say what it sees
but drops where, and nothing that is trained on it later ever learns a position or a direction.

Frames are dealt over the world as in the decoupled step; each rank computes the loss of the frames that it encodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.config import VisionConfig
from model.errors import InputError
from moss_train.engines.models import Models
from moss_train.engines.optimization import Optimization
from moss_train.frames.distribution import gather_counts
from moss_train.frames.exchange import exchange
from moss_train.frames.pixels import gather_pixels, read_here
from moss_train.frames.plan import FramePlan, Transfer, WindowPlan, plan_frames
from moss_train.parallel.layout import ParallelLayout
from moss_train.phases import Phases
from moss_train.signals import SIGNALS, Signals
from moss_train.statistics import StepStatistics

_SUMS = 4  # loss, patches, right patches, frames


def pooled_cells(config: VisionConfig) -> torch.Tensor:
    """int64 [patches]: index of the pooled cell that each patch of a frame goes into, row-major."""
    stride = 1 if config.pool_mode == "none" else config.pool_stride
    place = torch.arange(config.grid_size) // stride
    return (place[:, None] * (config.grid_size // stride) + place[None, :]).flatten()


class DenseStep:
    """Computes gradients of, or evaluates, the classification of patches and of their places.

    Args:
        models: with a dense head.
        optimization: gradient buffers of the vision unit.
        layout: this rank's place.
        chunk: frames in one call of the tower.
    """

    def __init__(self, models: Models, optimization: Optimization, layout: ParallelLayout, chunk: int) -> None:
        if models.unit.dense_head is None:
            raise InputError("stage.objective is dense_labels but the model has no dense head; set stage.dense_classes")
        self._models = models
        self._head = models.unit.dense_head
        self._cells = pooled_cells(models.config.vision).to(layout.device)
        self._classes = self._head.out_features - models.config.vision.tokens_per_frame + 1
        self._optimization = optimization
        self._layout = layout
        self._chunk = chunk
        self._plan: FramePlan | None = None
        self.phases = Phases(layout.device)

    def accumulate(self, batches: Sequence[PackedMicroBatch], signals: Signals | None = None) -> StepStatistics:
        """Leave in the gradient buffers the gradient of the global batch's mean loss (class and place) a labelled patch."""
        self._optimization.zero()
        with self.phases("encode"):
            sums = self._run(batches, train=True)
        sums[_SUMS:] += torch.tensor((signals or Signals()).values(), dtype=sums.dtype, device=sums.device)
        with self.phases("statistics"):
            self._reduce(sums)
        self._optimization.finish_vision(sums[1])
        return self._statistics(sums)

    def evaluate(self, groups: Iterable[Sequence[PackedMicroBatch]], dataset_names: Sequence[str]) -> StepStatistics:
        """Forward passes only; `groups` as in the decoupled step."""
        total = torch.zeros(_SUMS + SIGNALS, dtype=torch.float64, device=self._layout.device)
        with torch.no_grad():
            for batches in groups:
                total += self._run(batches, train=False)
        self._reduce(total)
        return self._statistics(total)

    def _run(self, batches: Sequence[PackedMicroBatch], train: bool) -> torch.Tensor:
        """Loss sum, patches, right patches, frames of this rank, and free slots for signals, float64 [4 + signals]."""
        layout = self._layout
        counts = gather_counts([batch.num_frames for batch in batches], layout)
        self._plan = plan_frames(counts, layout.places, self._models.attends, rank=layout.rank)
        window = self._plan.windows[0]  # without a bound there is one
        sums = torch.zeros(_SUMS + SIGNALS, dtype=torch.float64, device=layout.device)
        pixels, ids = gather_pixels(window, batches, layout)
        labels = self._gather_labels(window, batches)
        for begin in range(0, len(pixels), self._chunk):
            end = begin + self._chunk
            features = self._models.vision.tower(pixels[begin:end], ids[begin:end])
            scores = self._head(features[:, 1:]).float().flatten(0, 1)  # [frames * patches, classes + cells]
            logits, places = scores.split([self._classes, scores.shape[1] - self._classes], dim=1)
            wanted = labels[begin:end].flatten()
            counted = wanted != IGNORE_INDEX
            cells = self._cells.repeat(features.shape[0]).masked_fill(~counted, IGNORE_INDEX)
            loss = F.cross_entropy(logits, wanted, ignore_index=IGNORE_INDEX, reduction="sum")
            loss = loss + F.cross_entropy(places, cells, ignore_index=IGNORE_INDEX, reduction="sum")
            if train:
                loss.backward()
            sums[0] += loss.detach()
            sums[1] += counted.sum()
            sums[2] += ((logits.detach().argmax(-1) == wanted) & counted).sum()
        sums[3] += len(pixels)
        return sums

    def _gather_labels(self, window: WindowPlan, batches: Sequence[PackedMicroBatch]) -> torch.Tensor:
        """Labels int64 [n, grid, grid] of the frames that this rank encodes; only the rank that read them has them."""
        layout, grid = self._layout, self._models.config.vision.grid_size
        parts = [batch.dense_labels for batch in batches if batch.dense_labels is not None]
        local = torch.cat(parts) if parts else torch.empty((0, grid, grid), dtype=torch.int64)

        def rows_of(transfer: Transfer) -> torch.Tensor:
            return local[transfer.span.begin : transfer.span.end].to(layout.device)

        arrived = {t.span: rows for t, rows in exchange(window.pixels, rows_of, (grid, grid), torch.int64, layout.device)}
        own = [
            local[span.begin : span.end].to(layout.device) if read_here(span, layout) else arrived[span]
            for span in window.spans
            if span.rank == layout.rank
        ]
        return torch.cat(own) if own else local[:0].to(layout.device)

    def check(self, batch: PackedMicroBatch) -> None:
        """Look at a micro-batch on the rank that read it.

        Raises:
            InputError: frames without labels, labels of another grid, or a class that the head does not have.
        """
        grid, labels = self._models.config.vision.grid_size, batch.dense_labels
        if labels is None:
            if batch.num_frames:
                raise InputError(
                    f"sample {batch.sample_keys[0] if batch.sample_keys else '?'} has frames without dense labels; "
                    "stage.objective=dense_labels takes samples of kind dense only"
                )
            return
        if labels.shape[1:] != (grid, grid):
            raise InputError(
                f"dense labels are {list(labels.shape[1:])} a frame but the model's patch grid is "
                f"{grid} x {grid}; make labels for vision.patch_size"
            )
        if labels.numel() and int(labels.max()) >= self._classes:
            raise InputError(f"a dense label is {int(labels.max())} but stage.dense_classes is {self._classes}; raise it")

    def _reduce(self, sums: torch.Tensor) -> None:
        if self._layout.world_size > 1:
            dist.all_reduce(sums)

    def _statistics(self, sums: torch.Tensor) -> StepStatistics:
        assert self._plan is not None
        loss, patches, right, frames, *signals = sums.tolist()
        return StepStatistics(
            loss=loss / max(patches, 1.0),
            targets=int(patches),
            class_loss={},
            dataset_loss={},
            tokens=0,
            frames=int(frames),
            encoded_by_rank=self._plan.encoded_by_rank(self._layout.world_size),
            accuracy=right / max(patches, 1.0),
            signals=Signals.of(signals),
        )
