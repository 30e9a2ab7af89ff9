"""Which rows see which frames in the micro-batches that attention is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Workload:
    """Row t sees the frames [begin[t], end[t])."""

    name: str
    begin: Ints
    end: Ints
    bounds: Ints
    """Rows at which the samples begin, and the number of rows."""
    frames: int

    @property
    def rows(self) -> int:
        return len(self.begin)

    @property
    def seen(self) -> int:
        """Pairs of a row and a frame that it sees."""
        return int((self.end - self.begin).clip(min=0).sum())


def growing(rows: int, frames: int) -> Workload:
    """A stream: rows spread evenly behind the frames, each sees all frames so far; half of all pairs."""
    end = np.arange(rows) * frames // rows + 1
    return Workload(f"growing prefix, {frames} frames", np.zeros(rows, dtype=np.int64), end, np.array([0, rows]), frames)


def offline(rows: int, frames: int) -> Workload:
    """A video in front of its text: one row a frame sees the frames so far, all rows behind see every frame."""
    end = np.minimum(np.arange(rows) + 1, frames)
    return Workload(f"offline, {frames} frames", np.zeros(rows, dtype=np.int64), end, np.array([0, rows]), frames)


def mixture(rows: int, frames: int, seed: int = 0) -> Workload:
    """A pack of samples: text, images, videos before their text and streams, until the rows or frames are used up.

    Kinds have equal shares; texts have 64 to 1,024 rows, videos and streams 4 to 128 frames, both log-uniform.
    """
    generator = np.random.default_rng(seed)
    begins, ends, bounds, used = [], [], [0], 0
    while bounds[-1] < rows:
        count = min(int(64 * 16 ** generator.random()), rows - bounds[-1])
        kind = generator.integers(4)
        longest = min(count, frames - used)
        taken = 0 if kind == 0 else 1 if kind == 1 else int(4 * 32 ** generator.random())
        taken = min(taken, longest)
        row = np.arange(count)
        end = np.minimum(row + 1, taken) if kind < 3 else np.minimum(row * taken // count + 1, taken)
        begins.append(np.full(count, used))
        ends.append(used + end)
        bounds.append(bounds[-1] + count)
        used += taken
    return Workload(f"packed mixture, {used} frames", np.concatenate(begins), np.concatenate(ends), np.array(bounds), used)


WORKLOADS: dict[str, Callable[[int, int], Workload]] = {"growing": growing, "offline": offline, "mixture": mixture}
