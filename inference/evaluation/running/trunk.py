"""Keys and values of a clip as it grows: what is asked at any moment goes on in a fork, and nothing is computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine, Stepping, StepRequest

_FRAMES_A_STEP = 128
"""Frames that one step feeds, which bounds its memory."""


class Trunk:
    """The rows before the first frame, and the frames so far.

    Args:
        engine: the step engine.
        features: gives those of some frames, [f, P, H].
        head: ids before the first image token.
    """

    def __init__(self, engine: StepEngine, features: Callable[[Sequence[int]], torch.Tensor], head: Sequence[int]) -> None:
        self._engine, self._features = engine, features
        self._rows = list(head)
        self._cache = engine.new_cache()
        self._fed = 0

    def fork(self, numbers: Sequence[int]) -> Stepping[SessionCache]:
        """A cache that has seen the head and the frames `numbers`; those fed before must be their beginning."""
        image = self._engine.image_id
        for begin in range(self._fed, len(numbers), _FRAMES_A_STEP):
            part = numbers[begin : begin + _FRAMES_A_STEP]
            rows = [*self._rows, *[image] * len(part)]
            yield StepRequest(self._cache, rows, features=self._features(part))
            self._rows, self._fed = [], begin + len(part)
        return self._cache.fork()

    def release(self) -> None:
        """Give the pages back; forks keep theirs."""
        self._cache.release()


def head_of(rows: Sequence[int], image_id: int) -> list[int]:
    """Ids before the first image token."""
    return list(rows[: list(rows).index(image_id)])
