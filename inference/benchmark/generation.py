"""Answers of a fixed length, with the moment at which each token was in the host's hands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from inference.benchmark.meter import Meter
from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine, Stepping, StepRequest
from inference.graphs.runner import BUCKETS
from inference.sampling import Sampler, SamplingConfig


@dataclass
class Generated:
    """The tokens of one answer."""

    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    """By the meter's clock, one of each token."""

    @property
    def tokens_per_second(self) -> float:
        """Of all tokens but the first."""
        spent = self.times[-1] - self.times[0] if self.times else 0.0
        return (len(self.times) - 1) / spent if spent > 0 else 0.0


def greedy() -> Sampler:
    """Takes the likeliest token, whatever it is."""
    return Sampler(SamplingConfig())


def fixed_length(
    cache: SessionCache,
    rows: Sequence[int],
    count: int,
    meter: Meter,
    *,
    frames: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> Stepping[Generated]:
    """Feed `rows`, then each chosen token, until there are `count`: no token ends the answer.

    Args:
        frames: uint8 [f, 3, S, S] of the image tokens among `rows`, or
        features: the same frames encoded, [f, P, H].
    """
    sampler = greedy()
    found = Generated()
    token = yield StepRequest(cache, rows, frames, features, sampler=sampler, ahead=count > 1)
    while True:
        found.times.append(meter.now())
        found.tokens.append(token)
        if len(found.tokens) == count:
            return found
        token = yield StepRequest(cache, [token], sampler=sampler, ahead=len(found.tokens) + 1 < count)


def prepare(engine: StepEngine, sessions: int) -> None:
    """Make the tower's calls and the decoder's graphs that so many greedy sessions may need when they speak and frames arrive."""
    engine.encoder.warm_up()
    for count in (size for size in BUCKETS if size <= 2 * sessions - 1):
        # A step holds some of the sessions, each with its token and perhaps frames.
        engine.prepare([greedy() for _ in range(min(count, sessions))], [n for n in BUCKETS if count <= n <= 4 * count])


@contextmanager
def session(engine: StepEngine) -> Iterator[SessionCache]:
    """An empty session whose pages are given back at the end."""
    cache = engine.new_cache()
    try:
        yield cache
    finally:
        cache.release()


def answer(engine: StepEngine, rows: Sequence[int], count: int, meter: Meter, frames: torch.Tensor | None = None) -> Generated:
    """A whole answer about frames from an empty session on."""
    with session(engine) as cache:
        return engine.drive([fixed_length(cache, rows, count, meter, frames=frames)])[0]
