"""Streams: frames and prompts arrive at their times, and the model speaks when it wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine, Stepping
from inference.evaluation.latency.profile import LatencyProfile
from inference.evaluation.running.frames import read_frames
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Scenario, Trace
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings


def session_settings(scenario: Scenario, settings: RunSettings, *, encode_on_arrival: bool = False) -> SessionSettings:
    """Of the session that watches a scenario."""
    return SessionSettings(
        system=scenario.system,
        sampling=settings.sampling,
        tokens_per_second=None if settings.tokens_per_frame is None else settings.tokens_per_frame * scenario.fps,
        encode_on_arrival=encode_on_arrival,
    )


def prompt_arrivals(scenario: Scenario) -> list[Arrival]:
    """The prompts in the order of their times."""
    return [Arrival(t=prompt.t, prompt=prompt.text) for prompt in sorted(scenario.prompts, key=lambda prompt: prompt.t)]


def frame_arrivals(scenario: Scenario, folder: Path, size: int) -> Iterator[Arrival]:
    """The frames at their times, decoded as they are taken."""
    for number, pixels in enumerate(read_frames(scenario, folder, range(scenario.num_frames), size)):
        yield Arrival(t=number / scenario.fps, frame=pixels)


def push_stepping(
    engine: StepEngine,
    tokenizer: Tokenizer,
    scenario: Scenario,
    folder: Path,
    settings: RunSettings,
    profile: LatencyProfile | None = None,
) -> Stepping[Trace]:
    """One stream on a virtual clock; with a profile computing takes the time that it says."""
    frames = frame_arrivals(scenario, folder, engine.model.config.vision.image_size)
    session = RealtimeSession(
        engine,
        tokenizer,
        Inbox(merge(prompt_arrivals(scenario), frames)),
        VirtualClock(costs=profile),
        session_settings(scenario, settings, encode_on_arrival=profile is not None and profile.encode_on_arrival),
    )
    # The last frame has its full slot, as every other.
    yield from session.stepping(until=scenario.num_frames / scenario.fps)
    return push_trace(engine, scenario, session, "virtual")


def push_trace(engine: StepEngine, scenario: Scenario, session: RealtimeSession, clock: str) -> Trace:
    """What a session that has ended did."""
    frames = session.ledger.as_dict()
    details = {"clock": clock, "frames": frames, "end": session.end_reason, "session": session.describe()}
    seen = int(frames["processed"])
    usage = {"frames": seen, "visual_tokens": engine.model.config.vision.tokens_per_frame * seen, "encoded_frames": seen}
    return Trace(scenario_id=scenario.id, mode="push", events=session.events, engine=details, usage=usage)
