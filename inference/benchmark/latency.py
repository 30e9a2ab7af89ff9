"""`python -m inference.benchmark.latency --out FILE`: a latency profile of this machine, for `moss eval --latency-profile`.

Steps by rows fed and by what the session holds, calls of the encoder by frames, and sessions in real time, out of which come what
the session itself takes and how fast tokens follow each other.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data_pipeline.text.template import encode_interruption
from inference.benchmark.generation import fixed_length, greedy, session
from inference.benchmark.meter import DeviceMeter, timed
from inference.benchmark.models import MODELS, random_model
from inference.benchmark.streams import WideTokenizer, pictures_for, run_live, streams_of
from inference.benchmark.surroundings import surroundings
from inference.benchmark.workload import prompt, text
from inference.cache.session_cache import SessionCache
from inference.checkpoint import check_device, dtype_of
from inference.commands import exit_code
from inference.engine import StepEngine
from inference.evaluation.latency.profile import LatencyProfile, Points, interpolate, save_profile
from inference.evaluation.schema import Trace
from inference.session.costs import StepSize
from model.errors import InputError

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 65, 128, 256, 512, 1024)
ENCODED = (1, 2, 4, 8)
BASE_ROWS, BASE_FRAMES = 128, 16
LONG_ROWS, LONG_FRAMES = 1024, 128
REPEATS = 9


class Steps:
    """Times steps of one session at a time.

    Args:
        engine: the step engine.
        repeats: of each; the median counts.
    """

    def __init__(self, engine: StepEngine, repeats: int = REPEATS) -> None:
        self.engine, self.repeats = engine, repeats
        self.config = engine.model.config
        self.meter = DeviceMeter(engine.model.device)
        self.frames = pictures_for(engine, max(ENCODED))
        self.spreads: dict[str, tuple[float, float]] = {}
        """Smallest and largest of each measurement."""

    def step(self, cache: SessionCache, rows: int, features: torch.Tensor | None = None) -> float:
        """Seconds of feeding so many rows, frames among them."""
        count = 0 if features is None else len(features)
        ids = text(self.config, rows - count, seed=rows) + [self.config.image_token_id] * count
        length, seen = cache.length, cache.frames

        def once() -> float:
            seconds = timed(self.meter, lambda: self.engine.drive([fixed_length(cache, ids, 1, self.meter, features=features)]))
            cache.rewind(length, seen)
            return seconds

        return self._median(f"step of {rows} rows, {count} frames, over {length} rows, {seen} frames", once)

    def encode(self, count: int) -> float:
        """Seconds of one call of the encoder."""
        encoder = self.engine.encoder

        def once() -> float:
            if count == 1:
                return timed(self.meter, lambda: encoder.submit(self.frames[0], clip=encoder.new_clip()).features())
            return timed(self.meter, lambda: self.engine.encode(self.frames[:count]))

        return self._median(f"encoding {count} frames", once)

    def holding(self, cache: SessionCache, rows: int, frames: int) -> None:
        """Make a session hold so much."""
        features = self.engine.encode(self.frames[:1]).expand(frames, -1, -1)
        self.engine.drive([fixed_length(cache, prompt(self.config, frames, rows - frames), 1, self.meter, features=features)])

    def _median(self, name: str, once: Callable[[], float]) -> float:
        for _ in range(2):
            once()
        found = [once() for _ in range(self.repeats)]
        self.spreads[name] = (min(found), max(found))
        return statistics.median(found)


def measure(
    engine: StepEngine, *, live_seconds: float = 10.0, fps: float = 2.0, repeats: int = REPEATS, rows: Sequence[int] = ROWS
) -> LatencyProfile:
    """The profile of one engine on this machine.

    Args:
        live_seconds: of each of the two sessions in real time.
        fps: of their frames: a device that was idle for longer wakes a little slower.
        repeats: of each step; the median counts.
        rows: sizes of steps.
    """
    steps = Steps(engine, repeats)
    engine.encoder.warm_up()
    engine.prepare([greedy()], [size for size in rows if size <= 64])
    encode: Points = [(count, steps.encode(count)) for count in ENCODED]
    with session(engine) as cache:
        steps.holding(cache, BASE_ROWS, BASE_FRAMES)
        by_rows: Points = [(count, steps.step(cache, count)) for count in rows]
        features = engine.encode(steps.frames[:1])
        with_frame = steps.step(cache, 2, features)
    one = interpolate(by_rows, 1)
    with session(engine) as cache:
        steps.holding(cache, LONG_ROWS, BASE_FRAMES)
        per_row = max(0.0, steps.step(cache, 1) - one) / (LONG_ROWS - BASE_ROWS)
    with session(engine) as cache:
        steps.holding(cache, BASE_ROWS + LONG_FRAMES - BASE_FRAMES, LONG_FRAMES)
        per_frame = max(0.0, steps.step(cache, 1) - one - per_row * (LONG_FRAMES - BASE_FRAMES)) / (LONG_FRAMES - BASE_FRAMES)
    profile = LatencyProfile(
        encode=encode,
        steps=by_rows,
        speaking_seconds=one,
        new_frame_seconds=max(0.0, with_frame - interpolate(by_rows, 2)),
        kept_rows=BASE_ROWS,
        kept_frames=BASE_FRAMES,
        row_seconds=per_row,
        frame_seconds=per_frame,
        encode_on_arrival=engine.model.device.type == "cuda",
    )
    tokenizer, frames = WideTokenizer(engine.model.config.text.vocab_size), pictures_for(engine)
    streams = streams_of("calibrate", live_seconds, fps)
    traces = [run_live(engine, tokenizer, stream, frames) for stream in streams]
    prompt_rows = 1 + len(encode_interruption(streams[0].prompts[0][1], tokenizer))
    spreads = {name: list(pair) for name, pair in steps.spreads.items()}
    return calibrate(profile, traces, spreads, prompt_rows, ahead=engine.server is not None)


def calibrate(
    profile: LatencyProfile, traces: Sequence[Trace], spreads: dict[str, Any], rows: int, ahead: bool
) -> LatencyProfile:
    """The profile with what only sessions show: their own work for arrivals, the pace of their tokens, encoding beside speech.

    Args:
        profile: of single steps.
        traces: of sessions in real time.
        spreads: of the single steps, for the file.
        rows: that a prompt of theirs has.
        ahead: whether steps are launched before their token is read.
    """
    seen = observe(traces)
    about: dict[str, Any] = {"spreads": spreads}
    for name, values in dataclasses.asdict(seen).items():
        if values:
            about[name] = {"count": len(values), "min": min(values), "median": statistics.median(values), "max": max(values)}
    found: dict[str, Any] = {"about": about}
    if seen.gaps:
        found["speaking_seconds"] = statistics.median(seen.gaps)
    if ahead:
        found["ahead_seconds"] = found.get("speaking_seconds", profile.speaking_seconds)
    if seen.waits:
        step = profile.step_seconds(StepSize(2, 1, profile.kept_rows, profile.kept_frames, False))
        found["encode_overhead_seconds"] = statistics.median(seen.waits) - step - profile.encode_seconds(1)
    if seen.prompts:
        step = profile.step_seconds(StepSize(rows, 0, profile.kept_rows, profile.kept_frames, False))
        found["prompt_seconds"] = max(0.0, statistics.median(seen.prompts) - step)
    if seen.beside_speech:
        alone = profile.encode_seconds(1) + found.get("encode_overhead_seconds", 0.0)
        found["encode_speaking_seconds"] = max(0.0, statistics.median(seen.beside_speech) - alone)
    return dataclasses.replace(profile, **found)


@dataclass
class Observed:
    """Seconds, out of sessions in real time."""

    waits: list[float] = field(default_factory=list)
    """From a frame's arrival to the token after it, while nothing was said."""
    prompts: list[float] = field(default_factory=list)
    """From a prompt's arrival to its first token, while nothing was said."""
    gaps: list[float] = field(default_factory=list)
    """Between tokens of speech that neither frame nor prompt disturbed, from the third on."""
    beside_speech: list[float] = field(default_factory=list)
    """From a frame's arrival to its features, while something was said: half a token before the boundary that took it."""


def observe(traces: Sequence[Trace]) -> Observed:
    """All of some sessions."""
    seen = Observed()
    for trace in traces:
        arrived: dict[int, float] = {}
        run: list[float] = []
        asked: float | None = None
        disturbed = False
        for event in trace.events:
            if event.kind == "frame_in" and event.frame is not None:
                arrived[event.frame] = event.t
            elif event.kind == "frame_done" and event.frame in arrived:
                if not run:
                    seen.waits.append(event.t - arrived[event.frame])
                elif len(run) > 1:
                    seen.beside_speech.append(run[-1] - (run[-1] - run[-2]) / 2 - arrived[event.frame])
                disturbed = True
            elif event.kind == "prompt":
                asked, disturbed = (event.t if not run else None), True
            elif event.kind == "silence":
                run = []
            elif event.kind == "token" and event.token is not None:
                if asked is not None:
                    seen.prompts.append(event.t - asked)
                if len(run) >= 2 and not disturbed:
                    seen.gaps.append(event.t - run[-1])
                run.append(event.t)
                asked, disturbed = None, False
    return seen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and where the file goes."""
    parser.add_argument("--out", type=Path, required=True, help="profile to write")
    parser.add_argument("--model", default="11b", metavar="NAME", help="11b (default) or tiny, with random weights, or a folder")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument("--dtype", default="auto", help="bf16, fp16, fp32 or auto: bf16 on a GPU, fp32 elsewhere (default)")
    parser.add_argument("--live-seconds", type=float, default=10.0, help="of each of two sessions in real time (default 10)")
    parser.add_argument("--fps", type=float, default=2.0, help="of their frames: give what the streams will have (default 2)")


def make_engine(model: str, device_name: str, dtype_name: str) -> StepEngine:
    """An engine of random weights or of a checkpoint.

    Raises:
        InputError: no such model, device or dtype.
    """
    device = torch.device(check_device(device_name))
    dtype = dtype_of(("bf16" if device.type == "cuda" else "fp32") if dtype_name == "auto" else dtype_name)
    if model in MODELS:
        return StepEngine(random_model(MODELS[model], device, dtype))
    if not Path(model).is_dir():
        raise InputError(f"--model is {model!r}; use {', '.join(MODELS)} or the folder of a checkpoint")
    from inference.model.load import load_model

    return StepEngine(load_model(Path(model), device, dtype))


def run(arguments: argparse.Namespace) -> int:
    """Measure and write.

    Raises:
        InputError: a bad argument.
    """
    if not arguments.out.absolute().parent.is_dir() or arguments.out.is_dir():
        raise InputError(f"--out is {arguments.out}; name a file in a folder that exists")
    if not 1 <= arguments.live_seconds <= 600:
        raise InputError(f"--live-seconds is {arguments.live_seconds:g}; give 1 to 600")
    if not 0.1 <= arguments.fps <= 30:
        raise InputError(f"--fps is {arguments.fps:g}; give 0.1 to 30")
    with torch.inference_mode():
        engine = make_engine(arguments.model, arguments.device, arguments.dtype)
        profile = measure(engine, live_seconds=arguments.live_seconds, fps=arguments.fps)
    profile.about.update(surroundings(engine.model.device), model=arguments.model, dtype=str(engine.model.dtype))
    save_profile(arguments.out, profile)
    print(describe(profile))
    print(arguments.out)
    return 0


def describe(profile: LatencyProfile) -> str:
    """Its main figures in one line."""
    frame = profile.encode_seconds(1) + profile.step_seconds(StepSize(2, 1, profile.kept_rows, profile.kept_frames, False))
    question = profile.prompt_seconds + interpolate(profile.steps, 24)
    return (
        f"frame to token {1e3 * frame:.2f} ms, question of 24 rows to token {1e3 * question:.2f} ms, "
        f"{1 / profile.speaking_seconds:.0f} tokens/s, one frame encoded in {1e3 * profile.encode_seconds(1):.2f} ms"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark.latency", description=__doc__)
    add_arguments(parser)
    run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(exit_code("latency", main))
