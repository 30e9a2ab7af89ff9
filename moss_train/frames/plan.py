"""The transfers of one step: pixels to the ranks that encode, features to those that attend, gradients back.

A plan is a pure function of frame counts and the layout, so every rank holds the whole of it, knows whether a
collective is needed at all, and all ranks make the same calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moss_train.frames.assignment import Span, assign_frames
from moss_train.parallel.layout import RankPlace


@dataclass(frozen=True)
class Transfer:
    """Rows of one span that go from a rank to a rank (which may be the same)."""

    source: int
    target: int
    span: Span


@dataclass(frozen=True)
class FramePlan:
    """Transfers of one step; each list is in the same order on every rank."""

    frames: tuple[int, ...]
    """Frames of each data-parallel replica."""
    spans: tuple[Span, ...]
    pixels: tuple[Transfer, ...]
    """Only spans encoded outside the replica whose ranks hold the pixels."""
    features: tuple[Transfer, ...]
    """From the encoding rank to every rank of the replica whose stage has cross-attention layers."""
    gradients: tuple[Transfer, ...]
    """Back from one tensor-parallel copy of each such stage; the encoding rank adds them up."""

    def owned(self, rank: int) -> list[Span]:
        """Spans that a rank encodes, in the order in which it concatenates them."""
        return [span for span in self.spans if span.rank == rank]

    def encoded_frames(self, rank: int) -> int:
        """How many frames a rank encodes."""
        return sum(span.size for span in self.owned(rank))


def plan_frames(frames: Sequence[int], places: Sequence[RankPlace], attends: Sequence[bool]) -> FramePlan:
    """Plan one step.

    Args:
        frames: frames of each data-parallel replica, its micro-batches together.
        places: place of every rank.
        attends: for every rank, whether its pipeline stage has a cross-attention layer.
    """
    members = [[rank for rank, place in enumerate(places) if place.data == replica] for replica in range(len(frames))]
    spans = assign_frames(frames, members)
    replica_of = [place.data for place in places]
    pixels, features, gradients = [], [], []
    for span in spans:
        home = members[span.replica]
        if replica_of[span.rank] != span.replica:
            # Spread the sending over the replica: the rank in the same place as the receiver sends.
            sender = home[members[replica_of[span.rank]].index(span.rank)]
            pixels.append(Transfer(sender, span.rank, span))
        for rank in home:
            if attends[rank]:
                features.append(Transfer(span.rank, rank, span))
                if places[rank].tensor == 0:
                    # Every tensor-parallel rank holds the complete gradient: one copy, never the sum.
                    gradients.append(Transfer(rank, span.rank, span))
    return FramePlan(tuple(frames), tuple(spans), tuple(pixels), tuple(features), tuple(gradients))
