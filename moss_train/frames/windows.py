"""Windows of a step: micro-batches whose frames are encoded and exchanged together, bounded by memory.

All ranks cut the same windows because they know the same counts. A window is transient memory only. What stays until
the end of the decode phase does not depend on it: the features of all frames of the replica on each rank whose stage
attends, and their gradients as they arise. At 11B in bf16 that is 2 x 0.83 MB a frame: 3.4 GB for 8 micro-batches of
256 frames, divided by `parallel.context`. The pixels of frames that are encoded again stay too, 0.94 MB each, on the
one rank that encodes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class WindowBound:
    """How much memory a rank may use for the frames in flight, and what a frame takes."""

    limit: float
    """Bytes; a single micro-batch that needs more is a window by itself."""
    pixels: int
    """Bytes of one frame's pixels, uint8."""
    features: int
    """Bytes of one frame's features [P, H]."""
    replica_ranks: int
    """Ranks of one data-parallel replica."""
    context: int
    """Context-parallel ranks among which a micro-batch's features are spread."""
    stages: int
    """Pipeline stages, each of which may return a gradient."""

    def needed(self, frames: Sequence[int]) -> int:
        """Bytes of a window with these frames of each replica, on the rank that needs most.

        Encoding holds each owned frame's pixels and features twice (received and joined; made and staged), the pixels that
        a replica's reading rank sends, all of the replica's at most, and arriving features twice. Returning holds gradients
        twice (joined and staged) and, for owned frames, one gradient a stage and their fp32 sum.
        """
        world = len(frames) * self.replica_ranks
        owned, most = math.ceil(sum(frames) / world), max(frames)
        held = math.ceil(most / self.context)
        encoding = 2 * owned * (self.pixels + self.features) + most * self.pixels + 2 * held * self.features
        returning = 2 * held * self.features + owned * self.features * (self.stages + 2)
        return max(encoding, returning)


def cut_windows(counts: Sequence[Sequence[int]], bound: WindowBound | None) -> list[tuple[int, int]]:
    """First and one past the last micro-batch of each window; as few windows as fit, in order.

    Args:
        counts: frames of each micro-batch of each replica; all replicas have equally many micro-batches.
        bound: None puts the whole step into one window.
    """
    batches = len(counts[0])
    if bound is None:
        return [(0, batches)]
    windows: list[tuple[int, int]] = []
    begin = 0
    for end in range(1, batches + 1):
        if end - begin > 1 and bound.needed([sum(row[begin:end]) for row in counts]) > bound.limit:
            windows.append((begin, end - 1))
            begin = end - 1
    return [*windows, (begin, batches)]
