"""Pixels on their way from the rank that read them to the ranks that encode them: uint8 all the way.

One rank of each replica reads. It copies from its micro-batches piece by piece, straight to where a piece is wanted: the
frames of a window are never joined on the host, and pinned pixels go to the GPU without anybody waiting for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.frames.assignment import Span
from moss_train.frames.exchange import exchange
from moss_train.frames.plan import Transfer, WindowPlan
from moss_train.parallel.layout import ParallelLayout


def read_here(span: Span, layout: ParallelLayout) -> bool:
    """Whether this rank read the frames of a span; no other rank has their pixels or labels."""
    return layout.writes_for_replica and span.replica == layout.place.data


class ReadFrames:
    """The frames of a window's micro-batches, counted through.

    Args:
        batches: this replica's micro-batches of the window, with pixels.
    """

    def __init__(self, batches: Sequence[PackedMicroBatch]) -> None:
        self._batches = batches

    def copy(self, span: Span, pixels: torch.Tensor, ids: torch.Tensor) -> None:
        """Copy a span's frames to views uint8 [n, 3, S, S] and aspect ids [n] on any device."""
        first = 0
        for batch in self._batches:
            begin, end = max(span.begin - first, 0), min(span.end - first, batch.num_frames)
            if begin < end:
                rows = slice(first + begin - span.begin, first + end - span.begin)
                pixels[rows].copy_(batch.frames[begin:end], non_blocking=True)
                # CUDA has read pageable memory when it returns.
                ids[rows].copy_(batch.aspect_ratio_ids[begin:end], non_blocking=True)
            first += batch.num_frames


def gather_pixels(
    plan: WindowPlan, batches: Sequence[PackedMicroBatch], layout: ParallelLayout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels uint8 [n, 3, S, S] and aspect ids int64 [n] of the spans that this rank encodes, in span order.

    Args:
        plan: a window.
        batches: this replica's micro-batches of the window; their pixels matter on the rank that reads for the replica
            only, their shape everywhere.

    Frames that were not read here arrive as one row of bytes each, the aspect id last.
    """
    shape = batches[0].frames.shape[1:]
    length = shape.numel()
    read = ReadFrames(batches)

    def rows_of(transfer: Transfer) -> torch.Tensor:
        rows = torch.empty((transfer.span.size, length + 1), dtype=torch.uint8, device=layout.device)
        read.copy(transfer.span, rows[:, :length].unflatten(1, shape), rows[:, length])
        return rows

    arrived = {t.span: rows for t, rows in exchange(plan.pixels, rows_of, (length + 1,), torch.uint8, layout.device)}
    count = plan.owned(layout.rank).size
    pixels = torch.empty((count, *shape), dtype=torch.uint8, device=layout.device)  # [n, 3, S, S]
    ids = torch.empty(count, dtype=torch.int64, device=layout.device)  # [n]
    begin = 0
    for span in plan.spans:
        if span.rank != layout.rank:
            continue
        rows = slice(begin, begin + span.size)
        if read_here(span, layout):
            read.copy(span, pixels[rows], ids[rows])
        else:
            received = arrived.pop(span)
            pixels[rows] = received[:, :length].unflatten(1, shape)
            ids[rows] = received[:, length]
        begin += span.size
    return pixels, ids
