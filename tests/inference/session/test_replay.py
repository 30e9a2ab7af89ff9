"""A recorded session runs again to the token, and the first difference is named."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.text import TextWindow
from inference.cache.policies.window import SinkWindow
from inference.evaluation.latency.profile import LatencyProfile
from inference.evaluation.schema import Trace
from inference.evaluation.storage import load_traces, save_traces
from inference.sampling import SamplingConfig
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock, WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.replay import replay_trace
from inference.session.settings import SessionSettings
from model.errors import InputError
from tests.inference.session.streams import FRAMES, RecordingEngine, frames, run


def _trace(session: RealtimeSession, clock: str, path: Path) -> Trace:
    """Through a file, as a user's."""
    details = {"clock": clock, "session": session.describe()}
    save_traces(path, [Trace(scenario_id="s", mode="push", events=session.events, engine=details)])
    return load_traces(path)[0]


ARRIVALS = (
    *frames(6, fps=2.0),
    Arrival(t=3.0, frame=torch.zeros(3, 8, 8, dtype=torch.uint8)),
    Arrival(t=2.4, frame=FRAMES[7]),
    *(Arrival(t=3.1 + i / 100, frame=FRAMES[8 + i]) for i in range(5)),
)
SPOKEN = (Arrival(t=0.3, prompt="left"), Arrival(t=1.4, control="stop"), Arrival(t=3.6, prompt="what is it ?"))
POLICY = CachePolicy(cross=SinkWindow(1, 3), text=TextWindow(64, 64), step_frames=2)


@pytest.mark.parametrize("change", [{}, {"queue_policy": "coalesce", "policy": POLICY}, {"queue_policy": "degrade"}])
def test_a_virtual_trace_replays_with_every_event(
    engine: RecordingEngine, tokenizer: Tokenizer, tmp_path: Path, change: dict[str, object]
) -> None:
    manners = {"tokens_per_second": 5.0, "max_pending_frames": 2, "max_new_tokens": 60, **change}
    sampling = SamplingConfig(do_sample=True, top_k=20, seed=3)
    arrivals = list(merge(SPOKEN, ARRIVALS))
    session = run(engine, tokenizer, arrivals, until=6.0, settings=SessionSettings(sampling=sampling, **manners))  # type: ignore[arg-type]
    assert session.ledger.rejected["shape"] == session.ledger.rejected["time"] == 1
    trace = _trace(session, "virtual", tmp_path / "t.jsonl")
    pixels = {i: arrival.frame for i, arrival in enumerate(ARRIVALS) if arrival.frame is not None}
    report = replay_trace(trace, pixels, engine, tokenizer)
    assert report.matches and report.compared == len(trace.events) and not session.ledger.pending


@pytest.mark.parametrize("pace", [None, 5.0])
def test_a_trace_of_a_latency_profile_replays_by_its_token_boundaries(
    engine: RecordingEngine, tokenizer: Tokenizer, tmp_path: Path, pace: float | None
) -> None:
    """Without the file of the profile, which only decided what was taken when."""
    profile = LatencyProfile(encode=[(1, 0.11)], steps=[(1, 0.07)], speaking_seconds=0.05, ahead_seconds=0.05)
    settings = SessionSettings(tokens_per_second=pace, encode_on_arrival=True, max_pending_frames=2)
    session = RealtimeSession(engine, tokenizer, Inbox(merge(SPOKEN, ARRIVALS)), VirtualClock(costs=profile), settings)
    session.run(until=6.0)
    trace = _trace(session, "virtual", tmp_path / "t.jsonl")
    trace.engine["latency_profile"] = "elsewhere.json"
    pixels = {i: arrival.frame for i, arrival in enumerate(ARRIVALS) if arrival.frame is not None}
    report = replay_trace(trace, pixels, engine, tokenizer)
    assert report.matches and report.compared > 30


def test_a_wall_trace_replays_by_its_token_boundaries(engine: RecordingEngine, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Frames, prompts and stops of another thread, as fast as the model goes: what was taken when is chance, and recorded."""
    engine.steps = []
    clock, inbox = WallClock(), Inbox(live=True)
    sampling = SamplingConfig(do_sample=True, seed=1)
    session = RealtimeSession(
        engine, tokenizer, inbox, clock, SessionSettings(sampling=sampling, max_new_tokens=150, idle_timeout=0.0)
    )

    def push() -> None:
        for i in range(8):
            inbox.push_frame(FRAMES[i], clock.now())
            if i % 3 == 1:
                inbox.push_prompt("left", clock.now())
            if i == 6:
                inbox.push_stop(clock.now())
            threading.Event().wait(0.01)
        inbox.close()

    thread = threading.Thread(target=push)
    thread.start()
    session.run()
    thread.join()
    trace = _trace(session, "wall", tmp_path / "t.jsonl")
    assert all(event.wall_t is not None for event in trace.events)
    fed = list(engine.steps)
    engine.steps = []
    report = replay_trace(trace, FRAMES, engine, tokenizer)
    assert report.matches, report.difference.describe() if report.difference else ""
    assert engine.steps[: len(fed)] == fed
    assert report.compared == sum(e.kind not in ("frame_in", "frame_dropped", "frame_rejected", "end") for e in trace.events)


@settings(max_examples=6)
@given(data=st.data(), clock=st.sampled_from(["virtual", "wall"]))
def test_the_first_difference_is_named(
    engine: RecordingEngine, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, clock: str
) -> None:
    manners = SessionSettings(tokens_per_second=6.0, max_new_tokens=60)
    session = run(engine, tokenizer, list(merge(SPOKEN[:1], frames(4))), until=4.0, settings=manners)
    trace = _trace(session, clock, tmp_path_factory.mktemp("replay") / "t.jsonl")
    said = [i for i, event in enumerate(trace.events) if event.token is not None]
    place = data.draw(st.sampled_from(said))
    token = trace.events[place].token
    trace.events[place] = dataclasses.replace(trace.events[place], token=(token or 0) + 1)
    report = replay_trace(trace, FRAMES, engine, tokenizer)
    assert report.difference is not None and report.difference.index == place
    sentence = report.difference.describe()
    assert f"event {place}: recorded" in sentence and f"of id {(token or 0) + 1}" in sentence


def test_what_cannot_be_replayed_says_why(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="holds no settings"):
        replay_trace(Trace(scenario_id="x", mode="offline"), FRAMES, engine, tokenizer)
    session = run(engine, tokenizer, frames(3), until=3.0)
    trace = Trace(scenario_id="x", mode="push", events=session.events, engine={"clock": "virtual", "session": session.describe()})
    with pytest.raises(InputError, match="frame 2 of the trace is missing"):
        replay_trace(trace, FRAMES[:2], engine, tokenizer)
    trace.engine["session"]["volume"] = 11
    with pytest.raises(InputError, match="volume is not known"):
        replay_trace(trace, FRAMES, engine, tokenizer)
