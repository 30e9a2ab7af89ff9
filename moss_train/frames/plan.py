"""The transfers of one step: pixels to the ranks that encode, features to those that attend, gradients back.

A plan is a pure function of frame counts and the layout, so every rank holds the whole of it, knows whether a
collective is needed at all, and all ranks make the same calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from model.rows import frame_share
from moss_train.frames.assignment import Span, assign_frames
from moss_train.frames.windows import WindowBound, cut_windows
from moss_train.parallel.layout import RankPlace


@dataclass(frozen=True)
class Transfer:
    """Rows of one span, or of a piece of it, that go from a rank to a rank (which may be the same)."""

    source: int
    target: int
    span: Span


class Transfers:
    """Transfers in the same order on every rank: all of the world, or those in which one rank takes part."""

    def __init__(self, rank: int | None) -> None:
        self._rank = rank
        self._items: list[Transfer] = []
        self.crosses = False
        """Whether any transfer of the world leaves its rank: then, and only then, every rank calls the collective."""

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self._items)

    def matters(self, source: int, target: int) -> bool:
        """Whether a transfer between two ranks has anything to add here."""
        return self._rank is None or self._rank in (source, target) or (not self.crosses and source != target)

    def add(self, source: int, target: int, span: Span) -> None:
        """Add one more."""
        self.crosses |= source != target
        if self._rank is None or self._rank in (source, target):
            self._items.append(Transfer(source, target, span))


@dataclass(frozen=True)
class FrameRows:
    """Frames of one or several replicas that lie behind each other in the rows of a tensor."""

    ranges: tuple[tuple[int, int, int], ...]
    """Replica, first frame, one past the last; in the order of the rows."""

    @property
    def size(self) -> int:
        return sum(end - begin for _, begin, end in self.ranges)

    def place(self, piece: Span) -> slice:
        """Rows of a piece that lies within one of the ranges."""
        row = 0
        for replica, begin, end in self.ranges:
            if replica == piece.replica and begin <= piece.begin and piece.end <= end:
                return slice(row + piece.begin - begin, row + piece.end - begin)
            row += end - begin
        raise ValueError(f"{piece} is not among {self.ranges}")

    def pieces(self, span: Span) -> list[Span]:
        """What of a span lies here, in its order."""
        cut = [(max(begin, span.begin), min(end, span.end)) for replica, begin, end in self.ranges if replica == span.replica]
        return [Span(span.replica, begin, end, span.rank) for begin, end in cut if end > begin]


@dataclass(frozen=True)
class WindowPlan:
    """Transfers of one window."""

    first: int
    """First micro-batch, the same number in every replica."""
    last: int
    """One past the last micro-batch."""
    frames: tuple[int, ...]
    """Frames of each data-parallel replica."""
    spans: tuple[Span, ...]
    pixels: Transfers
    """From the replica's rank that reads to the encoding rank, where that is another one."""
    features: Transfers
    """From the encoding rank to every rank of the replica whose stage has cross-attention layers; of a context-parallel
    group only to the rank that holds the frame."""
    gradients: Transfers
    """Back from one tensor-parallel copy of each such stage; the encoding rank adds up the stages. Context-parallel
    ranks return disjoint frames."""
    held: Mapping[tuple[int, int], FrameRows]
    """By replica and context-parallel index: the frames whose features such a rank holds if its stage attends, in the order
    of its micro-batches."""

    def owned(self, rank: int) -> FrameRows:
        """Frames that a rank encodes, in the order in which it concatenates them."""
        return FrameRows(tuple((s.replica, s.begin, s.end) for s in self.spans if s.rank == rank))


@dataclass(frozen=True)
class FramePlan:
    """One step, window after window."""

    windows: tuple[WindowPlan, ...]

    @property
    def frames(self) -> int:
        """Frames of the whole step."""
        return sum(sum(window.frames) for window in self.windows)

    def encoded_by_rank(self, world_size: int) -> list[int]:
        """How many frames each rank encodes."""
        encoded = [0] * world_size
        for window in self.windows:
            for span in window.spans:
                encoded[span.rank] += span.size
        return encoded


def reading_rank(members: Sequence[int], places: Sequence[RankPlace]) -> int:
    """The rank of a replica that reads its data and so holds all its pixels.

    Args:
        members: ranks of the replica.
        places: place of every rank.
    """
    return next(r for r in members if places[r].tensor == places[r].pipeline == places[r].context == 0)


def held_rows(counts: Sequence[int], replica: int, context_size: int, context: int) -> FrameRows:
    """Frames of a replica whose features one of its context-parallel ranks holds, over the micro-batches of a window.

    Args:
        counts: frames of each micro-batch of the window.
    """
    ranges: list[tuple[int, int, int]] = []
    first = 0
    for count in counts:
        begin, end = (first + edge for edge in frame_share(count, context_size, context))
        if ranges and ranges[-1][2] == begin:
            ranges[-1] = (replica, ranges[-1][1], end)
        elif end > begin:
            ranges.append((replica, begin, end))
        first += count
    return FrameRows(tuple(ranges))


def plan_frames(
    counts: Sequence[Sequence[int]],
    places: Sequence[RankPlace],
    attends: Sequence[bool],
    bound: WindowBound | None = None,
    rank: int | None = None,
) -> FramePlan:
    """Plan one step.

    Args:
        counts: frames of each micro-batch of each data-parallel replica.
        places: place of every rank.
        attends: for every rank, whether its pipeline stage has a cross-attention layer.
        bound: memory bound of a window; None makes one window of the step.
        rank: list only transfers in which this rank takes part: at 512 ranks the world has some ten thousands. None lists all.
    """
    members = [[rank for rank, place in enumerate(places) if place.data == replica] for replica in range(len(counts))]
    loads = [0] * len(places)
    windows = []
    for first, last in cut_windows(counts, bound):
        windows.append(_plan_window(first, last, [row[first:last] for row in counts], members, places, attends, loads, rank))
        for span in windows[-1].spans:
            loads[span.rank] += span.size
    return FramePlan(tuple(windows))


def _plan_window(
    first: int, last: int, counts: Sequence[Sequence[int]], members: Sequence[Sequence[int]], places: Sequence[RankPlace],
    attends: Sequence[bool], loads: Sequence[int], rank: int | None,
) -> WindowPlan:  # fmt: skip
    frames = [sum(row) for row in counts]
    spans = assign_frames(frames, members, loads)
    context_size = 1 + max(place.context for place in places)
    held = {
        (replica, context): held_rows(row, replica, context_size, context)
        for replica, row in enumerate(counts)
        for context in range(context_size)
    }
    readers = [reading_rank(ranks, places) for ranks in members]
    pixels, features, gradients = Transfers(rank), Transfers(rank), Transfers(rank)
    for span in spans:
        home = members[span.replica]
        if span.rank != readers[span.replica]:
            pixels.add(readers[span.replica], span.rank, span)
        for user in home:
            place = places[user]
            if not attends[user] or not (features.matters(span.rank, user) or gradients.matters(user, span.rank)):
                continue
            for piece in held[span.replica, place.context].pieces(span):
                features.add(span.rank, user, piece)
                if place.tensor == 0:
                    # Every tensor-parallel rank holds the complete gradient: one copy, never the sum.
                    gradients.add(user, span.rank, piece)
    return WindowPlan(first, last, tuple(frames), tuple(spans), pixels, features, gradients, held)
