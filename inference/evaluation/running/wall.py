"""Streams in real time: a thread puts the frames in when they are due, the session deals with them as fast as it can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.evaluation.running.frames import read_frames
from inference.evaluation.running.push import prompt_arrivals, push_trace, session_settings
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Scenario, Trace
from inference.session.attentive import attentive
from inference.session.clock import WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.sources.pump import SourcePump
from inference.sources.source import Now, TimedFrame, slot_times


class ScenarioSource:
    """The frames of a scenario as a recorded source.

    Args:
        scenario: whose they are.
        folder: what its paths are relative to.
        size: side of the model's square in pixels.
    """

    live = False

    def __init__(self, scenario: Scenario, folder: Path, size: int) -> None:
        self.name = f"scenario {scenario.id}"
        self.duration: float | None = scenario.num_frames / scenario.fps
        self.prompts: Sequence[tuple[float, str]] = []
        self._scenario, self._folder, self._size = scenario, folder, size
        self._closed = False

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        """Draw the frames, once."""
        count = self._scenario.num_frames
        pictures = read_frames(self._scenario, self._folder, range(count), self._size)
        for t, pixels in zip(slot_times(count, self._scenario.fps), pictures, strict=True):
            if self._closed:
                return
            yield TimedFrame(t, pixels)

    def close(self) -> None:
        """No more frames."""
        self._closed = True


def run_in_real_time(engine: StepEngine, tokenizer: Tokenizer, scenario: Scenario, folder: Path, settings: RunSettings) -> Trace:
    """One stream on a wall clock; takes as long as it lasts.

    Raises:
        InputError: the video is damaged, or a step failed.
    """
    on_gpu = engine.model.device.type == "cuda"
    clock, inbox = WallClock(), Inbox(prompt_arrivals(scenario), live=True)
    session = RealtimeSession(engine, tokenizer, inbox, clock, session_settings(scenario, settings, encode_on_arrival=on_gpu))
    pump = SourcePump(ScenarioSource(scenario, folder, engine.model.config.vision.image_size), inbox, clock, fps=scenario.fps)
    if on_gpu:
        engine.encoder.warm_up()
        torch.cuda.synchronize()
    try:
        with attentive():
            clock.start()
            pump.start()
            session.run(until=scenario.num_frames / scenario.fps)
    finally:
        inbox.close()
        pump.stop()
    pump.raise_error()
    trace = push_trace(engine, scenario, session, "wall")
    trace.engine["late_frames"] = pump.late
    return trace
