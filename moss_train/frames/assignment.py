"""Who encodes which frame: balanced over the whole world, and on ranks that already hold the pixels where possible.

All ranks compute the same plan from the same frame counts; nothing is negotiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Consecutive frames of one data-parallel replica, given to one rank."""

    replica: int
    """Data-parallel index that needs the features (and whose ranks hold the pixels)."""
    begin: int
    """First frame, counted over the replica's micro-batches in order."""
    end: int
    rank: int
    """Rank that encodes."""

    @property
    def size(self) -> int:
        return self.end - self.begin


def assign_frames(frames: Sequence[int], members: Sequence[Sequence[int]]) -> list[Span]:
    """Deal all frames over all ranks.

    Args:
        frames: number of frames of each data-parallel replica in this step.
        members: ranks of each replica; all replicas have equally many and no rank is in two.

    Returns:
        Spans in order of replica and frame. Every frame is in exactly one; the ranks' totals differ by at most one;
        a frame leaves its replica only when the replica's ranks are full.
    """
    world = sum(len(ranks) for ranks in members)
    base, extra = divmod(sum(frames), world)
    quotas = _replica_quotas(frames, [len(ranks) for ranks in members], base, extra)
    room = {
        rank: base + (1 if place < quota - base * len(ranks) else 0)
        for ranks, quota in zip(members, quotas, strict=True)
        for place, rank in enumerate(ranks)
    }
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


def _replica_quotas(frames: Sequence[int], sizes: Sequence[int], base: int, extra: int) -> list[int]:
    """Frames that each replica's ranks encode together: the odd ones go where frames are in excess."""
    extras = [min(size, max(0, count - base * size)) for count, size in zip(frames, sizes, strict=True)]
    for i in reversed(range(len(extras))):
        extras[i] -= max(0, min(extras[i], sum(extras) - extra))
    for i, size in enumerate(sizes):
        extras[i] += max(0, min(size - extras[i], extra - sum(extras)))
    return [base * size + more for size, more in zip(sizes, extras, strict=True)]


def _fill(spans: list[Span], replica: int, begin: int, end: int, ranks: Sequence[int], room: dict[int, int]) -> int:
    """Give frames `begin .. end - 1` to the ranks in turn while they have room; returns the first frame not given."""
    for rank in ranks:
        take = min(room[rank], end - begin)
        if take > 0:
            spans.append(Span(replica, begin, begin + take, rank))
            room[rank] -= take
            begin += take
    return begin
