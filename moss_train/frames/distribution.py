"""One step's frames on this rank: pixels gathered, encoded, features handed out, gradients taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from model.rows import frame_share
from moss_train.frames.exchange import exchange
from moss_train.frames.host_memory import host_memory
from moss_train.frames.owned import OwnedFrames
from moss_train.frames.pixels import gather_pixels
from moss_train.frames.plan import FramePlan, Transfer, WindowPlan, plan_frames
from moss_train.frames.settings import EncodeSettings, Kept
from moss_train.frames.windows import WindowBound
from moss_train.parallel.layout import ParallelLayout

if TYPE_CHECKING:
    from moss_train.engines.models import Models


def gather_counts(own: Sequence[int], layout: ParallelLayout) -> list[list[int]]:
    """Frames of each micro-batch of each replica, from each rank's own counts.

    Args:
        own: frames of this rank's micro-batches; every rank has equally many micro-batches.

    Raises:
        InputError: model-parallel ranks of a replica were given different micro-batches.
    """
    if layout.world_size == 1:
        return [list(own)]
    mine = torch.tensor(own, dtype=torch.int64, device=layout.device)
    everyone = torch.empty(layout.world_size * len(own), dtype=torch.int64, device=layout.device)
    dist.all_gather_into_tensor(everyone, mine)
    counts = everyone.view(layout.world_size, len(own)).tolist()
    frames: list[list[int] | None] = [None] * layout.data_size
    for rank, (place, row) in enumerate(zip(layout.places, counts, strict=True)):
        expected = frames[place.data]
        if expected not in (None, row):
            raise InputError(
                f"rank {rank} has {row} frames where its replica has {expected}: its model-parallel ranks read "
                "different data; give all of them the same loader"
            )
        frames[place.data] = row
    return [row or [] for row in frames]


class FrameDistribution:
    """Encodes a step's frames over the world, window after window, and sends the decoder's gradients back.

    What this rank holds until the decode phase ends: the features of all frames of its replica (of its context-parallel
    share of them) if its stage attends, and the autograd state of the frames that it keeps. `moss_train.frames.windows`
    says what that takes.
    """

    def __init__(self, models: Models, layout: ParallelLayout, settings: EncodeSettings) -> None:
        self._models = models
        self._layout = layout
        self._settings = settings
        vision = models.config.vision
        tokens, width = models.state_shape
        self._bound = WindowBound(
            limit=settings.window_bytes,
            pixels=vision.num_channels * vision.image_size**2,
            features=tokens * width * models.dtype.itemsize,
            replica_ranks=layout.world_size // layout.data_size,
            context=layout.sizes.context,
            stages=layout.sizes.pipeline,
        )
        self._plan: FramePlan | None = None
        self._owned: list[OwnedFrames | None] = []
        self._trains = "nothing"
        self._shares: list[int] = []
        self.keep_mode = "all"
        """What the step keeps of a kept frame: `vision.keep_mode`, auto resolved."""
        self.host_mode = "all"
        """And of one whose state goes to host memory: `vision.keep_host_mode`."""
        uses = settings.host_bytes > 0 and models.vision_trains == "tower"
        self._memory = host_memory(settings.host_bytes, layout.device) if uses else None
        self.states: list[torch.Tensor | None] = []
        """Features [share, P, H] of each micro-batch: a leaf where this rank's stage attends, else zeros without storage
        that nobody reads; None without frames. The share is the whole micro-batch, or this rank's `frame_share` of it
        under context parallelism, which may be empty."""

    @property
    def encoded_by_rank(self) -> list[int]:
        """Frames of the first pass, by rank."""
        assert self._plan is not None
        return self._plan.encoded_by_rank(self._layout.world_size)

    @property
    def encoded_again(self) -> int:
        """Frames that this rank encoded a second time."""
        return sum(owned.encoded_again for owned in self._owned if owned is not None)

    @property
    def kept_on_host(self) -> int:
        """Frames whose state this rank keeps in host memory until their backward pass."""
        return sum(owned.on_host for owned in self._owned if owned is not None)

    @property
    def kept(self) -> int:
        """Frames whose state this rank keeps on its device until their backward pass."""
        return sum(owned.kept for owned in self._owned if owned is not None)

    @property
    def windows(self) -> int:
        """Windows of the step."""
        return len(self._plan.windows) if self._plan is not None else 0

    def encode(self, batches: Sequence[PackedMicroBatch], train: bool) -> None:
        """Fill `states`; every rank calls it, with frames or without."""
        layout, models = self._layout, self._models
        counts = gather_counts([batch.num_frames for batch in batches], layout)
        self._plan = plan_frames(counts, layout.places, models.attends, self._bound, layout.rank)
        self._trains = models.vision_trains if train else "nothing"
        edges = [frame_share(batch.num_frames, layout.sizes.context, layout.place.context) for batch in batches]
        self._shares = [end - begin for begin, end in edges]
        self._owned = []
        self.states = [None] * len(batches)
        kept = self._settings.kept(self._plan.encoded_by_rank(layout.world_size)[layout.rank])
        self.keep_mode, self.host_mode = kept.mode, kept.host_mode
        left = kept
        for window in self._plan.windows:
            owned = self._encode_window(window, batches[window.first : window.last], left) if sum(window.frames) else None
            if owned is not None:
                left = replace(left, frames=max(left.frames - owned.kept, 0), host=left.host - owned.on_host)
            self._owned.append(owned if self._trains != "nothing" else None)
        if self._memory is not None:
            self._memory.settle(0)  # the decoder has all of the device

    def _encode_window(self, window: WindowPlan, batches: Sequence[PackedMicroBatch], left: Kept) -> OwnedFrames:
        """left: what may still be kept, of this window's frames and those of later ones."""
        layout, models = self._layout, self._models
        pixels, ids = gather_pixels(window, batches, layout)
        settings = replace(
            self._settings,
            keep_mode=left.mode,
            frame_bytes=left.frame_bytes,
            choices=(),
            host_mode=left.host_mode,
            host_choices=(),
        )
        owned = OwnedFrames(models.vision, pixels, ids, self._trains, left.frames, settings, left.host, self._memory)
        features, rows = owned.features, window.owned(layout.rank)

        def rows_of(transfer: Transfer) -> torch.Tensor:
            assert features is not None
            return features[rows.place(transfer.span)]

        parts = exchange(window.features, rows_of, models.state_shape, models.dtype, layout.device)
        self._make_states(window, batches, torch.cat([part for _, part in parts]) if parts else None)
        owned.features = None
        return owned

    def _make_states(self, window: WindowPlan, batches: Sequence[PackedMicroBatch], features: torch.Tensor | None) -> None:
        """features: this rank's shares of the window's micro-batches behind each other; None if there are none."""
        shape, dtype, device = self._models.state_shape, self._models.dtype, self._layout.device
        begin = 0
        for index, batch in enumerate(batches, window.first):
            if batch.num_frames == 0:
                continue
            end = begin + self._shares[index]
            if self._models.attends[self._layout.rank]:
                share = torch.empty((0, *shape), dtype=dtype, device=device) if features is None else features[begin:end].detach()
                self.states[index] = share.requires_grad_(self._trains != "nothing")
            else:
                self.states[index] = torch.zeros((), dtype=dtype, device=device).expand(end - begin, *shape)
            begin = end

    def send_back(self) -> None:
        """Return the leaves' gradients to the encoding ranks and backpropagate there; every rank calls it."""
        if self._trains == "nothing":
            return
        assert self._plan is not None
        gradients = self._leaf_gradients()
        self.states = []  # frees the features before the tower's backward pass
        for window, owned in zip(self._plan.windows, self._owned, strict=True):
            if owned is not None:
                self._return_window(window, owned, gradients)

    def _return_window(self, window: WindowPlan, owned: OwnedFrames, gradients: list[torch.Tensor | None]) -> None:
        layout, models = self._layout, self._models
        parts = self._exchange_gradients(window, gradients)
        rows = window.owned(layout.rank)
        if rows.size == 0:
            return
        total = torch.zeros((rows.size, *models.state_shape), dtype=torch.float32, device=layout.device)
        for transfer, part in parts:  # one part for each attending stage: they add up
            total[rows.place(transfer.span)] += part
        parts.clear()
        owned.backward(total)

    def _exchange_gradients(
        self, window: WindowPlan, gradients: list[torch.Tensor | None]
    ) -> list[tuple[Transfer, torch.Tensor]]:
        """What the attending ranks return for this rank's frames; takes the window's micro-batches out of `gradients`."""
        layout, models = self._layout, self._models
        held = window.held[layout.place.data, layout.place.context]
        leaves = [gradient for gradient in gradients[window.first : window.last] if gradient is not None]
        local = torch.cat(leaves) if leaves else None
        leaves.clear()
        gradients[window.first : window.last] = [None] * (window.last - window.first)

        def rows_of(transfer: Transfer) -> torch.Tensor:
            assert local is not None
            return local[held.place(transfer.span)]

        return exchange(window.gradients, rows_of, models.state_shape, models.dtype, layout.device)

    def _leaf_gradients(self) -> list[torch.Tensor | None]:
        """Gradient [share, P, H] of each micro-batch; None where there is no frame or the stage does not attend."""
        if not self._models.attends[self._layout.rank]:
            return [None] * len(self.states)
        return [None if state is None else torch.zeros_like(state) if state.grad is None else state.grad for state in self.states]
