"""CPU seconds and latencies of ways to do the same thing, in turns, as ratios to one of them."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Say = Callable[[str], None]


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


@dataclass
class Pass:
    """One pass of a way over the same samples."""

    samples: int = 0
    frames: int = 0
    cpu: float = 0.0
    """CPU seconds."""
    latencies: list[float] = field(default_factory=list)
    """Seconds until each sample, or micro-batch, was there."""


def timed(steps: Callable[[Callable[[int, int], None]], None]) -> Pass:
    """Run `steps(done)`, which calls `done(samples, frames)` after each sample or micro-batch."""
    found = Pass()
    before, last = cpu_seconds(), time.perf_counter()

    def done(samples: int, frames: int) -> None:
        nonlocal last
        now = time.perf_counter()
        found.latencies.append(now - last)
        found.samples += samples
        found.frames += frames
        last = now

    steps(done)
    found.cpu = cpu_seconds() - before
    return found


@dataclass
class Row:
    """A way as ratios to the baseline of its table."""

    way: str
    samples: int
    """Of one pass."""
    frames: int
    speed: float
    """Samples per CPU second over the baseline's: median of the passes, each against the baseline's pass beside it."""
    slowest: float
    fastest: float
    p50: float
    """Of the latency, over the baseline's p50; so are the next two."""
    p95: float
    p99: float
    difference: str = ""
    """Of its pixels to the baseline's frames."""


def in_turns(ways: Mapping[str, Callable[[], Pass]], repeats: int, say: Say) -> dict[str, list[Pass]]:
    """Passes of each way, one of each in every round, after one that is not counted."""
    found: dict[str, list[Pass]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            say(f"round {turn}/{repeats}: {name}")
            one = way()
            if turn:
                found[name].append(one)
    return found


def rows(passes: Mapping[str, Sequence[Pass]], baseline: str, differences: Mapping[str, str] | None = None) -> list[Row]:
    """Ratios to `baseline`, pass by pass."""
    beside = passes[baseline]
    middle = float(np.percentile([s for p in beside for s in p.latencies], 50))
    made = []
    for way, mine in passes.items():
        speeds = [(p.samples / p.cpu) / (b.samples / b.cpu) for p, b in zip(mine, beside, strict=True)]
        p50, p95, p99 = np.percentile([s for p in mine for s in p.latencies], [50, 95, 99]) / middle
        made.append(
            Row(
                way=way,
                samples=mine[0].samples,
                frames=mine[0].frames,
                speed=round(float(np.median(speeds)), 3),
                slowest=round(min(speeds), 3),
                fastest=round(max(speeds), 3),
                p50=round(float(p50), 3),
                p95=round(float(p95), 3),
                p99=round(float(p99), 3),
                difference=(differences or {}).get(way, ""),
            )
        )
    return made
