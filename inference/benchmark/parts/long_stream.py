"""An hour of stream as fast as it goes, in a window: do memory and the time of a step stay where they are?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.benchmark.bench import Bench
from inference.benchmark.generation import greedy
from inference.benchmark.statistics import describe, differences, slope
from inference.benchmark.windows import newest, rows_needed
from inference.benchmark.workload import text
from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine, Stepping, StepRequest

MEMORY_EVERY = 20
"""Frames between two looks at the memory."""


@dataclass
class Course:
    """What was seen on the way."""

    times: list[float] = field(default_factory=list)
    """By the meter's clock, after each frame."""
    memory: list[tuple[int, float]] = field(default_factory=list)
    """(frames so far, GiB allocated)."""
    kept: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(frames so far, frames kept, rows kept, next position)."""


def watch(bench: Bench, engine: StepEngine, cache: SessionCache, frames: int, course: Course) -> Stepping[None]:
    """Show so many frames, each with the silence before it in one step; the next one is encoded meanwhile."""
    pictures = bench.clip(min(64, frames), seed=5)
    submit, sampler = engine.encoder.submit, greedy()
    silence, image = text(bench.config, 1, seed=9)[0], bench.config.image_token_id
    coming = submit(pictures[0])
    for number in range(frames):
        states, coming = coming.features(), submit(pictures[(number + 1) % len(pictures)])
        yield StepRequest(cache, [silence, image], features=states, sampler=sampler)
        course.times.append(bench.meter.now())
        if (number + 1) % MEMORY_EVERY == 0:
            course.memory.append((number + 1, bench.meter.memory()["allocated"]))
            course.kept.append((number + 1, cache.frames, cache.length, cache.next_position))


def trend(steps: Sequence[float], memory: Sequence[tuple[int, float]], filled: int) -> dict[str, Any]:
    """How a stream changes once its windows are full.

    Args:
        steps: seconds of each frame's step.
        memory: (frames so far, GiB).
        filled: frames after which nothing should grow any more.

    Returns:
        Slopes for 3,600 frames, and the median step of the last tenth over that of the first tenth behind `filled`.
    """
    late = list(enumerate(steps))[filled:]
    later_memory = [(float(n), gib) for n, gib in memory if n >= filled]
    tenth = max(1, len(late) // 10)
    first = describe([seconds for _, seconds in late[:tenth]])["p50"]
    last = describe([seconds for _, seconds in late[-tenth:]])["p50"]
    return {
        "memory_gib_per_hour": 3600 * slope([n for n, _ in later_memory], [gib for _, gib in later_memory]),
        "step_seconds_per_hour": 3600 * slope([float(n) for n, _ in late], [seconds for _, seconds in late]),
        "last_over_first": last / first,
    }


def measure(bench: Bench) -> dict[str, Any]:
    """A stream of `stream_frames` frames through windows of `window_frames` frames and `stream_rows` rows."""
    work = bench.workload
    engine = bench.engine(rows=rows_needed(work.stream_rows), frames=work.window_frames + 1, raw_keys=True)
    cache = engine.new_cache(policy=newest(work.window_frames, work.stream_rows, work.position_limit))
    course = Course()
    begin = bench.meter.now()
    engine.drive([watch(bench, engine, cache, work.stream_frames, course)])
    seconds = bench.meter.now() - begin
    steps = differences([begin, *course.times])
    filled = min(len(steps) // 2, max(work.window_frames, work.stream_rows // 2) + MEMORY_EVERY)
    cache.release()
    return {
        "frames": work.stream_frames,
        "seconds": seconds,
        "frames_per_second": work.stream_frames / seconds,
        "windows": {"frames": work.window_frames, "rows": work.stream_rows, "positions": work.position_limit},
        **trend(steps, course.memory, filled),
        "statistics": {"step_s": describe(steps)},
        "runs": {"step_s": steps, "memory_gib": course.memory, "kept": course.kept},
    }
