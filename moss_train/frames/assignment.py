"""Who encodes which frame: least predicted cost on the busiest rank, and at home where that allows it.

All ranks compute the same assignment from the same frame counts; nothing is negotiated. Every rank's predicted cost is
the same increasing function of the number of frames that it encodes in a step (`moss_train.frames.cost`: forward,
backward, and the second forward of the frames whose state is not kept), so the least possible maximum is reached by
counts that differ by at most one; whatever the cost of a frame is, it is weighed by levelling counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Consecutive frames of one data-parallel replica, given to one rank."""

    replica: int
    """Data-parallel index that needs the features, and one of whose ranks holds the pixels."""
    begin: int
    """First frame, counted over the replica's micro-batches of the window in order."""
    end: int
    rank: int
    """Rank that encodes."""

    @property
    def size(self) -> int:
        return self.end - self.begin


def assign_frames(frames: Sequence[int], members: Sequence[Sequence[int]], loads: Sequence[int] | None = None) -> list[Span]:
    """Deal all frames of a window over all ranks.

    Args:
        frames: number of frames of each data-parallel replica in this window.
        members: ranks of each replica; all replicas have equally many and no rank is in two.
        loads: frames that each rank (by number) was given in earlier windows of the step; None for the first.

    Returns:
        Spans in order of replica and frame. Every frame is in exactly one; the ranks' totals, loads included, differ by
        at most one where the loads did; a frame leaves its replica only when the replica's ranks are full.
    """
    before = {rank: loads[rank] if loads is not None else 0 for ranks in members for rank in ranks}
    level, extra = _level(sorted(before.values()), sum(frames))
    room = {rank: max(0, level - load) for rank, load in before.items()}
    open_ = [[rank for rank in ranks if before[rank] <= level] for ranks in members]  # may take one more than the level
    homes = [sum(room[rank] for rank in ranks) for ranks in members]
    extras = _extras(frames, homes, [len(ranks) for ranks in open_], extra)
    for above, more in zip(open_, extras, strict=True):
        for rank in above[:more]:
            room[rank] += 1
    spans: list[Span] = []
    left_over: list[tuple[int, int]] = []  # replica, first frame that found no room at home
    for replica, (count, ranks) in enumerate(zip(frames, members, strict=True)):
        done = _fill(spans, replica, 0, count, ranks, room)
        if done < count:
            left_over.append((replica, done))
    everyone = [rank for ranks in members for rank in ranks]
    for replica, begin in left_over:
        _fill(spans, replica, begin, frames[replica], everyone, room)
    return sorted(spans, key=lambda span: (span.replica, span.begin))


def _level(loads: Sequence[int], count: int) -> tuple[int, int]:
    """The highest level to which `count` frames can fill the (ascending) loads, and the frames left above it."""
    below, filled = 0, 0  # ranks below the level, their loads together
    for load in loads:
        if load * below - filled > count:
            break
        below, filled = below + 1, filled + load
    level, extra = divmod(count + filled, below)
    return level, extra


def _extras(frames: Sequence[int], homes: Sequence[int], free: Sequence[int], extra: int) -> list[int]:
    """How many ranks of each replica take one frame above the level: first where frames are in excess of the room."""
    extras = [min(size, max(0, count - home)) for count, home, size in zip(frames, homes, free, strict=True)]
    for i in reversed(range(len(extras))):
        extras[i] -= max(0, min(extras[i], sum(extras) - extra))
    for i, size in enumerate(free):
        extras[i] += max(0, min(size - extras[i], extra - sum(extras)))
    return extras


def _fill(spans: list[Span], replica: int, begin: int, end: int, ranks: Sequence[int], room: dict[int, int]) -> int:
    """Give frames `begin .. end - 1` to the ranks in turn while they have room; returns the first frame not given."""
    for rank in ranks:
        take = min(room[rank], end - begin)
        if take > 0:
            spans.append(Span(replica, begin, begin + take, rank))
            room[rank] -= take
            begin += take
    return begin
