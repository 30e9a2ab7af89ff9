"""Sessions that speak without pause while frames arrive: how even one's tokens come, and how fast many speak at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from inference.benchmark import roofline
from inference.benchmark.arrival import FrameFeed
from inference.benchmark.bench import Bench
from inference.benchmark.generation import fixed_length, greedy, prepare
from inference.benchmark.meter import Meter
from inference.benchmark.statistics import describe, differences
from inference.benchmark.windows import STEP_FRAMES, newest, rows_needed
from inference.benchmark.workload import prompt, text
from inference.cache.policies.policy import PageBounds
from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine, Stepping, StepRequest
from inference.serving.session_pool import SessionPool, Ticket


@dataclass
class Heard:
    """What one session did."""

    token_times: list[float] = field(default_factory=list)
    frame_latencies: list[float] = field(default_factory=list)
    """Seconds from a frame's arrival to the first token that has seen it."""


def speaking(cache: SessionCache, token: int, image_id: int, feed: FrameFeed, until: float, meter: Meter) -> Stepping[Heard]:
    """Speak until the clock says `until`: each token is fed back, a frame is spliced in behind it as soon as it is encoded.

    Args:
        cache: what the session has seen so far.
        token: its latest token.
        image_id: stands for a frame.
        feed: its frames.
    """
    heard, sampler = Heard(), greedy()
    while meter.now() < until:
        arrived = feed.take(STEP_FRAMES)
        rows = [token] + [image_id] * len(arrived)
        features = torch.cat([states for _, states in arrived]) if arrived else None
        token = yield StepRequest(cache, rows, features=features, sampler=sampler, ahead=True)
        now = meter.now()
        heard.token_times.append(now)
        heard.frame_latencies += [now - due for due, _ in arrived]
    return heard


def summarise(heard: Sequence[Heard], fps: float) -> dict[str, Any]:
    """Tokens a second of each session and statistics of gaps and of frames' latencies, in seconds."""
    gaps = [gap for one in heard for gap in differences(one.token_times)]
    speeds = [
        (len(one.token_times) - 1) / (one.token_times[-1] - one.token_times[0]) if len(one.token_times) > 1 else 0.0
        for one in heard
    ]
    statistics = {"gap_s": describe(gaps)}
    latencies = [seconds for one in heard for seconds in one.frame_latencies]
    if latencies:
        statistics["frame_latency_s"] = describe(latencies)
    return {
        "sessions": len(heard),
        "fps": fps,
        "tokens_per_second": {"mean": sum(speeds) / len(speeds), "slowest": min(speeds), "each": speeds},
        "jitter": statistics["gap_s"]["p99"] / statistics["gap_s"]["p50"],
        "frames_seen": len(latencies),
        "statistics": statistics,
        "runs": [{"gap_s": differences(one.token_times), "frame_latency_s": one.frame_latencies} for one in heard],
    }


def run_live(engine: StepEngine, caches: Sequence[SessionCache], bench: Bench, *, fps: float, seconds: float) -> list[Heard]:
    """Let the sessions of these caches speak for so long; their frames arrive evenly spread over the period."""
    meter, frames = bench.meter, bench.clip(max(8, bench.workload.window_frames), seed=3)
    count = len(caches)
    begin = meter.now() + 0.05
    pool = SessionPool(engine, max_sessions=count)
    tickets = []
    for number, cache in enumerate(caches):
        feed = FrameFeed(frames, begin + number / count / fps, fps, engine.encoder.submit, meter)
        first = text(bench.config, 1, seed=number)[0]
        start = partial(speaking, cache, first, bench.config.image_token_id, feed, begin + seconds, meter)
        tickets.append(pool.submit(start, PageBounds(0, 0), f"session {number}"))  # the pages are there: no budget
    pool.run()
    return [heard_by(ticket) for ticket in tickets]


def heard_by(ticket: Ticket[Heard]) -> Heard:
    """What a session did.

    Raises:
        Exception: what ended it before its time.
    """
    if ticket.error is not None:
        raise ticket.error
    assert ticket.result is not None
    return ticket.result


def measure_jitter(bench: Bench) -> dict[str, Any]:
    """One session with the clip's frames, frames arriving at the rate of the table.

    Returns:
        `jitter`: P99 / P50 of the gaps between tokens.
    """
    work, meter = bench.workload, bench.meter
    rows = prompt(bench.config, work.frames, work.text_rows)
    engine = bench.engine(rows=rows_needed(max(len(rows), work.stream_rows)), frames=work.frames + STEP_FRAMES)
    prepare(engine, 1)
    cache = engine.new_cache(policy=newest(work.frames, work.stream_rows))
    engine.drive([fixed_length(cache, rows, 1, meter, features=engine.encode(bench.clip(work.frames)))])
    run_live(engine, [cache], bench, fps=work.jitter_fps, seconds=work.jitter_seconds / 4)
    heard = run_live(engine, [cache], bench, fps=work.jitter_fps, seconds=work.jitter_seconds)
    cache.release()
    return summarise(heard, work.jitter_fps)


def measure_sessions(bench: Bench, recipe: str = "bf16") -> dict[str, Any]:
    """Many sessions, each with a window of frames and its own text, all speaking.

    Returns:
        tokens a second of each, and the statistics of frames' latencies.
    """
    work, meter = bench.workload, bench.meter
    pages = {
        "rows": work.sessions * rows_needed(work.sessions_rows),
        "frames": work.sessions * (work.window_frames + STEP_FRAMES),
    }
    engine = bench.engine(recipe, rows=pages["rows"], frames=pages["frames"])
    prepare(engine, work.sessions)
    policy = newest(work.window_frames, work.sessions_rows)
    features = engine.encode(bench.clip(work.window_frames))
    caches = []
    for number in range(work.sessions):
        rows = prompt(bench.config, work.window_frames, work.sessions_rows - work.window_frames, seed=number)
        cache = engine.new_cache(policy=policy)
        engine.drive([fixed_length(cache, rows, 1, meter, features=features)])
        caches.append(cache)
    fps = work.sessions_fps
    run_live(engine, caches, bench, fps=fps, seconds=work.sessions_seconds / 4)
    found = summarise(run_live(engine, caches, bench, fps=fps, seconds=work.sessions_seconds), fps)
    floor = roofline.decode_floor(
        bench.config, bench.chip, work.window_frames, work.sessions_rows, recipe=recipe, sessions=work.sessions
    )
    step = found["statistics"]["gap_s"]["p50"]
    for cache in caches:
        cache.release()
    return {
        **found,
        "window_frames": work.window_frames,
        "text_rows": work.sessions_rows,
        "memory_gib": meter.memory(),
        "roofline": {"step": {"floor_s": floor, "measured_s": step, "percent": 100 * floor / step}},
    }
