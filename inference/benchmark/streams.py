"""Scripted streams: made-up frames and prompts at their times, speech by script, on a wall clock or on a virtual one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from data_pipeline.text.tokenizer import Tokenizer
from inference.benchmark.workload import clip_frames
from inference.engine import StepEngine
from inference.evaluation.latency.decisions import Script, scripted
from inference.evaluation.latency.profile import LatencyProfile
from inference.evaluation.schema import Trace
from inference.session.arrivals import Arrival, merge
from inference.session.attentive import attentive
from inference.session.clock import Clock, VirtualClock, WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings
from inference.sources.pump import SourcePump
from inference.sources.source import Now, TimedFrame

_SENTENCES = ("what happens now ?", "tell me when it stops .", "a red ball comes in from the left and goes away .")


@dataclass(frozen=True)
class Stream:
    """One scripted stream."""

    name: str
    frames: int
    fps: float
    script: Script
    prompts: list[tuple[float, str]] = field(default_factory=list)
    """(seconds, text)"""

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.frames / self.fps


def streams_of(kind: str, seconds: float, fps: float = 2.0) -> list[Stream]:
    """The streams of one kind of behaviour.

    Args:
        kind: calibrate | proactive | prompted | dense | talkative.
        seconds: of each.
        fps: of those that calibrate.
    """
    question = _SENTENCES[0]
    if kind == "calibrate":
        count = max(9, int(fps * seconds))  # at least two utterances and a prompt
        speak = dict.fromkeys(range(3, count, 4), 12)
        # Prompts come while nothing is said, halfway between two frames.
        times = [((number + 0.5) / fps, question) for number in range(4, count, 4)]
        talk = Stream("calibrate speech", int(2 * seconds), 2.0, Script({1: 10_000}))
        return [Stream("calibrate", count, fps, Script(speak, answer=8), times), talk]
    if kind == "proactive":
        return [
            Stream(f"proactive {n}", int(2 * seconds), 2.0, Script(dict.fromkeys(range(3 + n, int(2 * seconds), 4), 8)))
            for n in range(2)
        ]
    if kind == "prompted":
        times = [(t + 0.3, question) for t in range(1, int(seconds), 2)]
        return [Stream("prompted", int(seconds), 1.0, Script(answer=10), times)]
    if kind == "dense":
        return [Stream("dense", int(8 * seconds), 8.0, Script(dict.fromkeys(range(6, int(8 * seconds), 9), 5)))]
    if kind == "talkative":
        # Where in a token a prompt comes is chance: many of them show the median.
        times = [(1.2 + 0.2937 * n, question) for n in range(int((seconds - 1.5) / 0.2937))]
        return [Stream("talkative", int(2 * seconds), 2.0, Script({1: 10_000}, answer=10_000), times)]
    raise ValueError(f"no such kind of stream: {kind}")


class WideTokenizer(Tokenizer):
    """A small tokenizer in front of a head of any size: ids that it does not know say nothing."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(train_demo_tokenizer(_SENTENCES, vocab_size=300).raw, "the benchmark's tokenizer")
        self.vocab_size = self.image_id = vocab_size

    def encode(self, text: str) -> list[int]:
        """Ids of the small vocabulary; none is an image's."""
        return super().encode(text)


class _Pictures:
    """Frames of a stream as a recorded source."""

    live = False

    def __init__(self, stream: Stream, frames: torch.Tensor) -> None:
        self.name = stream.name
        self.duration: float | None = stream.seconds
        self.prompts: Sequence[tuple[float, str]] = []
        self._stream, self._frames = stream, frames
        self._closed = threading.Event()

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        for number in range(self._stream.frames):
            if self._closed.is_set():
                return
            yield TimedFrame(number / self._stream.fps, self._frames[number % len(self._frames)])

    def close(self) -> None:
        self._closed.set()


def pictures_for(engine: StepEngine, count: int = 16) -> torch.Tensor:
    """uint8 [count, 3, S, S], page-locked where a GPU reads them."""
    frames = clip_frames(engine.model.config, count)
    return frames.pin_memory() if engine.model.device.type == "cuda" else frames


def run_live(engine: StepEngine, tokenizer: Tokenizer, stream: Stream, frames: torch.Tensor) -> Trace:
    """A stream in real time; takes as long as it lasts."""
    on_gpu = engine.model.device.type == "cuda"
    clock = WallClock()
    inbox = Inbox(_spoken(stream), live=True)
    session = _session(engine, tokenizer, inbox, clock, encode_on_arrival=on_gpu)
    pump = SourcePump(_Pictures(stream, frames), inbox, clock, fps=stream.fps)
    try:
        with attentive():
            clock.start()
            pump.start()
            engine.drive([scripted(session, stream.script, session.stepping(stream.seconds))])
    finally:
        inbox.close()
        pump.stop()
    pump.raise_error()
    return _trace(stream, session, "wall", late_frames=pump.late)


def run_simulated(
    engine: StepEngine, tokenizer: Tokenizer, stream: Stream, frames: torch.Tensor, profile: LatencyProfile
) -> Trace:
    """The same stream on a virtual clock with the profile's times, whatever machine this is."""
    arrivals = (Arrival(t=n / stream.fps, frame=frames[n % len(frames)]) for n in range(stream.frames))
    clock = VirtualClock(costs=profile)
    session = _session(
        engine, tokenizer, Inbox(merge(_spoken(stream), arrivals)), clock, encode_on_arrival=profile.encode_on_arrival
    )
    engine.drive([scripted(session, stream.script, session.stepping(stream.seconds))])
    return _trace(stream, session, "virtual")


def _spoken(stream: Stream) -> list[Arrival]:
    return [Arrival(t=t, prompt=text) for t, text in stream.prompts]


def _session(engine: StepEngine, tokenizer: Tokenizer, inbox: Inbox, clock: Clock, *, encode_on_arrival: bool) -> RealtimeSession:
    settings = SessionSettings(encode_on_arrival=encode_on_arrival, max_pending_frames=64)
    return RealtimeSession(engine, tokenizer, inbox, clock, settings)


def _trace(stream: Stream, session: RealtimeSession, clock: str, **more: Any) -> Trace:
    details = {"clock": clock, "frames": session.ledger.as_dict(), "end": session.end_reason, **more}
    return Trace(scenario_id=stream.name, mode="push", events=session.events, engine=details)
