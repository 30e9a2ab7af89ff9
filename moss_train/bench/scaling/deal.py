"""The other way to deal frames, for comparison: every replica's frames stay on its own ranks, however many they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from moss_train.frames import plan
from moss_train.frames.assignment import Span, assign_frames


def own_frames(frames: Sequence[int], members: Sequence[Sequence[int]], loads: Sequence[int] | None = None) -> list[Span]:
    """In place of `assign_frames`: as it deals a single replica's frames, replica by replica; nothing leaves one."""
    spans = []
    for replica, (count, ranks) in enumerate(zip(frames, members, strict=True)):
        spans += [Span(replica, s.begin, s.end, s.rank) for s in assign_frames([count], [ranks], loads)]
    return spans


@contextmanager
def dealt(how: str) -> Iterator[None]:
    """Steps within deal their frames so; nothing but measurements ever asks for `own`, so it is no option of runs.

    Args:
        how: world | own.
    """
    names = vars(plan)
    if how == "own":
        names["assign_frames"] = own_frames
    try:
        yield
    finally:
        names["assign_frames"] = assign_frames
