"""One step's frames on this rank: pixels gathered, encoded, features handed out, gradients taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from moss_train.frames.exchange import exchange
from moss_train.frames.owned import OwnedFrames
from moss_train.frames.plan import FramePlan, Transfer, plan_frames
from moss_train.parallel.layout import ParallelLayout

if TYPE_CHECKING:
    from moss_train.engines.models import Models


def gather_counts(own: int, layout: ParallelLayout) -> list[int]:
    """Frames of each replica, from each rank's own count.

    Raises:
        InputError: model-parallel ranks of a replica were given different micro-batches.
    """
    if layout.world_size == 1:
        return [own]
    mine = torch.tensor([own], dtype=torch.int64, device=layout.device)
    counts = torch.empty(layout.world_size, dtype=torch.int64, device=layout.device)
    dist.all_gather_into_tensor(counts, mine)
    frames: list[int | None] = [None] * layout.data_size
    for rank, (place, count) in enumerate(zip(layout.places, counts.tolist(), strict=True)):
        if frames[place.data] not in (None, count):
            raise InputError(
                f"rank {rank} has {count} frames where its replica has {frames[place.data]}: its model-parallel ranks read "
                "different data; give all of them the same loader"
            )
        frames[place.data] = count
    return [count or 0 for count in frames]


def gather_pixels(
    plan: FramePlan, batches: Sequence[PackedMicroBatch], layout: ParallelLayout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels uint8 [n, 3, S, S] and aspect ids int64 [n] of the spans that this rank encodes, in span order.

    Frames of its own replica lie here already; others arrive as one row of bytes each.
    """
    frames = torch.cat([batch.frames for batch in batches])
    ids = torch.cat([batch.aspect_ratio_ids for batch in batches])
    shape = frames.shape[1:]
    length = shape.numel() + 1

    def rows_of(transfer: Transfer) -> torch.Tensor:
        begin, end = transfer.span.begin, transfer.span.end
        return torch.cat([frames[begin:end].flatten(1), ids[begin:end, None].to(torch.uint8)], dim=1).to(layout.device)

    arrived = {t.span: rows for t, rows in exchange(plan.pixels, rows_of, (length,), torch.uint8, layout.device)}
    pixels, aspect = [], []
    for span in plan.owned(layout.rank):
        if span.replica == layout.place.data:
            pixels.append(frames[span.begin : span.end].to(layout.device))
            aspect.append(ids[span.begin : span.end].to(layout.device))
        else:
            pixels.append(arrived[span][:, :-1].reshape(span.size, *shape))
            aspect.append(arrived[span][:, -1].long())
    if not pixels:
        return frames[:0].to(layout.device), ids[:0].to(layout.device)
    return torch.cat(pixels), torch.cat(aspect)


class FrameDistribution:
    """Encodes a step's frames over the world and sends the decoder's gradients back."""

    def __init__(self, models: Models, layout: ParallelLayout, keep: int, chunk: int) -> None:
        self._models = models
        self._layout = layout
        self._keep, self._chunk = keep, chunk
        self._plan: FramePlan | None = None
        self._owned: OwnedFrames | None = None
        self._trains = "nothing"
        self._bounds: list[tuple[int, int]] = []
        self.states: list[torch.Tensor | None] = []
        """Features [F, P, H] of each micro-batch: a leaf where this rank's stage attends, else zeros without storage that
        nobody reads; None without frames."""

    @property
    def encoded_by_rank(self) -> list[int]:
        """Frames of the first pass, by rank."""
        assert self._plan is not None
        return [self._plan.encoded_frames(rank) for rank in range(self._layout.world_size)]

    @property
    def encoded_again(self) -> int:
        """Frames that this rank encoded a second time."""
        return self._owned.encoded_again if self._owned is not None else 0

    def encode(self, batches: Sequence[PackedMicroBatch], train: bool) -> None:
        """Fill `states`; every rank calls it, with frames or without."""
        layout, models = self._layout, self._models
        counts = [batch.num_frames for batch in batches]
        ends = torch.tensor(counts).cumsum(0).tolist()
        self._bounds = [(end - count, end) for count, end in zip(counts, ends, strict=True)]
        self._plan = plan_frames(gather_counts(sum(counts), layout), layout.places, models.attends)
        self._trains = models.vision_trains if train else "nothing"
        self._owned = None
        self.states = [None] * len(batches)
        if sum(self._plan.frames) == 0:
            return
        pixels, ids = gather_pixels(self._plan, batches, layout)
        self._owned = OwnedFrames(models.vision, pixels, ids, self._trains, self._keep, self._chunk)
        offsets = self._offsets()
        features = self._owned.features

        def rows_of(transfer: Transfer) -> torch.Tensor:
            assert features is not None
            begin = offsets[transfer.span]
            return features[begin : begin + transfer.span.size]

        parts = exchange(self._plan.features, rows_of, models.state_shape, models.dtype, layout.device)
        self._make_states(torch.cat([rows for _, rows in parts]) if parts else None)

    def _offsets(self) -> dict[object, int]:
        """First row of each owned span within this rank's encoded frames."""
        assert self._plan is not None
        offsets: dict[object, int] = {}
        begin = 0
        for span in self._plan.owned(self._layout.rank):
            offsets[span] = begin
            begin += span.size
        return offsets

    def _make_states(self, features: torch.Tensor | None) -> None:
        for i, (begin, end) in enumerate(self._bounds):
            if end == begin:
                continue
            if features is None:
                nothing = torch.zeros((), dtype=self._models.dtype, device=self._layout.device)
                self.states[i] = nothing.expand(end - begin, *self._models.state_shape)
            else:
                self.states[i] = features[begin:end].detach().requires_grad_(self._trains != "nothing")

    def send_back(self) -> None:
        """Return the leaves' gradients to the encoding ranks and backpropagate there; every rank calls it."""
        layout, models = self._layout, self._models
        if self._owned is None or self._trains == "nothing":
            return
        assert self._plan is not None
        local = self._leaf_gradients()

        def rows_of(transfer: Transfer) -> torch.Tensor:
            assert local is not None
            return local[transfer.span.begin : transfer.span.end]

        parts = exchange(self._plan.gradients, rows_of, models.state_shape, models.dtype, layout.device)
        self.states = []  # frees features and gradients before the tower's backward pass
        if self._owned.features is None:
            return
        offsets = self._offsets()
        total = torch.zeros_like(self._owned.features, dtype=torch.float32)
        for transfer, rows in parts:  # one part for each attending stage: they add up
            begin = offsets[transfer.span]
            total[begin : begin + transfer.span.size] += rows
        self._owned.backward(total)

    def _leaf_gradients(self) -> torch.Tensor | None:
        """Gradients of this replica's frames on this rank, [frames, P, H]; None where the stage does not attend."""
        leaves = [state for state in self.states if state is not None]
        if not leaves or not self._models.attends[self._layout.rank]:
            return None
        return torch.cat([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves])
