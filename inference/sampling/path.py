"""Which arithmetic a batch of samplers needs: known on the host, so that no launch depends on what is on the device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inference.sampling.config import SamplingConfig

EVERY = -1
"""All tokens are sorted."""
BOUNDS = (64, 1024)
"""Numbers of likeliest tokens that are looked for instead."""


@dataclass(frozen=True)
class SamplingPath:
    """What the rows of one call need; hashable, one CUDA graph for each."""

    sampled: bool = False
    candidates: int = 0
    """So many of the likeliest tokens are put in order for top-k and top-p; 0: neither is used; EVERY: all tokens."""
    threshold: bool = False
    penalty: bool = False


def path_of(configs: Iterable[SamplingConfig]) -> SamplingPath:
    """The least arithmetic that serves all of them."""
    configs = list(configs)
    drawing = [config for config in configs if config.do_sample]
    return SamplingPath(
        sampled=bool(drawing),
        candidates=_most(candidates(config) for config in drawing),
        threshold=any(config.silence_threshold > 0 for config in configs),
        penalty=any(config.repetition_penalty != 1 for config in configs),
    )


def candidates(config: SamplingConfig) -> int:
    """Tokens that must be in order for one row.

    With a top-k of at most 1024 the likeliest so many are proof: the k-th value is among them, and top-p cuts inside top-k.
    A top-p alone may keep any number of tokens, so nothing less than a sort is always right.
    """
    if config.top_k == 0:
        return EVERY if config.top_p < 1 else 0
    return next((bound for bound in BOUNDS if config.top_k <= bound), EVERY)


def _most(needed: Iterable[int]) -> int:
    found = set(needed)
    return EVERY if EVERY in found else max(found, default=0)
