"""Every figure of a stream on traces that are counted by hand, and against what a real session says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from inference.engine import StepEngine
from inference.evaluation.schema import Change, Scenario, Span, Trace, TraceEvent
from inference.evaluation.suites.system import SUITE
from inference.evaluation.suites.system.aggregate import quantile
from inference.model.load import load_model
from inference.session.arrivals import Arrival
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.session.streams import FRAMES


def _metrics(events: list[TraceEvent], scenario: Scenario | None = None, **engine: Any) -> dict[str, float | None]:
    scenario = scenario or Scenario(id="s", video="v", fps=1.0, num_frames=4)
    return SUITE.aggregate(SUITE.score([(Trace(scenario_id="s", mode="push", events=events, engine=engine), scenario)], None))


def _event(t: float, kind: str, frame: int | None = None, text: str = "", **more: Any) -> TraceEvent:
    token = 7 if kind in ("token", "silence") else None
    return TraceEvent(t=t, kind=kind, frame=frame, text=text, token=token, **more)


STREAM = [
    _event(0.0, "frame_in", 0),
    _event(0.2, "frame_done", 0),
    _event(0.2, "silence", 0),
    _event(1.0, "frame_in", 1),
    _event(1.4, "frame_done", 1),
    _event(1.4, "token", 1, "a"),  # 0.4 s after its frame came, unasked
    _event(1.5, "token", 1, "b"),
    _event(2.1, "token", 1, "c"),  # 0.6 s after b: the longest stall; frame 2 is there and not seen: 1 s stale
    _event(2.05, "prompt", text="what ?"),  # dealt with behind c
    _event(2.2, "turn_interrupted", 1),
    _event(2.2, "turn_start"),
    _event(2.0, "frame_in", 2),
    _event(2.6, "frame_done", 2),
    _event(2.6, "token", 2, "d"),  # 0.55 s after the prompt
    _event(2.7, "silence", 2),
    _event(3.0, "frame_in", 3),
    _event(3.5, "frame_dropped", 3, reason="backlog"),
    _event(4.0, "end", metrics={"busy_seconds": 1.0, "seconds": 4.0, "real_time_factor": 0.25}),
]


def test_a_stream_by_hand() -> None:
    found = _metrics(STREAM)
    # Latencies 0.2, 0.4, 0.6 s.
    assert found["frame_latency.p50"] == pytest.approx(0.4) and found["frame_latency.max"] == pytest.approx(0.6)
    assert found["first_token.p50"] == pytest.approx(0.55) and found["after_frame.p50"] == pytest.approx(0.4)
    assert found["stall.max"] == pytest.approx(0.6)
    # At tokens and silences: 0, 0, 0, 1 (frame 2 has come, frame 1 is seen), 0, 0.
    assert found["staleness.max"] == pytest.approx(1.0) and found["staleness.p50"] == 0.0
    # The old turn's last token came at 2.1, 0.05 s after the prompt; the new one's first at 2.6.
    assert found["barge_in.last_token.p50"] == pytest.approx(0.05) and found["barge_in.first_token.p50"] == pytest.approx(0.55)
    assert [found[f"frames.{name}"] for name in ("submitted", "processed", "dropped", "rejected")] == [4, 3, 1, 0]
    assert found["frames.dropped.backlog"] == 1 and found["frames.pending_max"] == 1
    assert found["accounting.violations"] == 0 and found["drift.max"] == 0.0
    assert found["real_time_factor"] == pytest.approx(0.25)
    # One token before frame 1, three before frame 2; the slot of frame 2, the last, is not over.
    assert found["emission.max"] == 3 and found["emission.mean"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("events", "violations"),
    [
        ([_event(0.0, "frame_in", 0), _event(1.0, "end")], 1),  # never settled
        ([_event(0.0, "frame_in", 0), _event(0.1, "frame_done", 0), _event(0.2, "frame_dropped", 0)], 1),  # twice
        ([_event(0.1, "frame_done", 3)], 1),  # never came
        ([_event(0.0, "frame_in", 0), _event(0.0, "frame_in", 0), _event(0.1, "frame_done", 0)], 1),  # came twice
        ([_event(0.0, "frame_in", 0)], 0),  # pending, and nobody says that the stream is over
    ],
)
def test_accounting_names_what_does_not_add_up(events: list[TraceEvent], violations: int) -> None:
    assert _metrics(events)["accounting.violations"] == violations


def test_without_a_frame_nothing_drifted() -> None:
    found = _metrics([])
    assert found["drift.max"] is None and found["drift.last"] is None and found["frames.submitted"] == 0.0


def test_self_correction_by_hand() -> None:
    changes = [
        Change(t=2.0, before="the door is open", after="the door is closed"),
        Change(t=6.0, before="it rains", after="it is dry"),
    ]
    scenario = Scenario(id="s", video="v", fps=1.0, num_frames=9, changes=changes)
    said = [
        (1.0, "The door is open."),
        (3.0, "the door is open"),
        (4.5, "No, the door is closed!"),
        (7.0, "it rains"),
        (8.0, "hm"),
    ]
    events = []
    for t, text in said:
        events += [_event(t, "token", int(t), text), _event(t + 0.1, "silence", int(t))]
    found = _metrics(events, scenario)
    # One of two new statements was made, 2.5 s after its change; 2 of 4 later statements say what is no longer true.
    assert found["correction.share"] == 0.5 and found["correction.seconds.p50"] == pytest.approx(2.5)
    assert found["correction.contradicted"] == 0.5


def test_speech_against_the_truth_and_the_pace_of_training() -> None:
    scenario = Scenario(id="s", video="v", fps=1.0, num_frames=4, spans=[Span(a=1.0, b=1.0)])
    found = _metrics(STREAM, scenario, emission={"tokens_per_frame": 2, "fps": 1.0})
    # Of the utterances at frames 1 and 2 the first hits the span; a minute has 15 such streams.
    assert (
        found["speak.precision"] == 0.5
        and found["speak.recall"] == 1.0
        and found["speak.false_per_minute"] == pytest.approx(15.0)
    )
    assert found["emission.over_trained"] == 0.5  # slots of 1 and 3 tokens


def test_quantiles() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.25, 0.5, 0.51, 0.99)] == [1.0, 1.0, 2.0, 3.0, 4.0]


def test_it_agrees_with_the_session_itself(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.vocab_size)
    tensors = random_tensors(config, seed=3)
    tensors["language_model.lm_head.weight"][tokenizer.silence_id] *= 4  # it says something, and not all the time
    engine = StepEngine(
        load_model(write_checkpoint(tmp_path, config, tokenizer=tokenizer, tensors=tensors), "cpu", torch.float32)
    )
    arrivals = [Arrival(t=n / 2, frame=FRAMES[n]) for n in range(16)]
    arrivals.append(Arrival(t=3.3, prompt="left"))
    arrivals.sort(key=lambda arrival: arrival.t)
    settings = SessionSettings(tokens_per_second=5, max_pending_frames=2, max_frames_per_step=1)
    with torch.inference_mode():
        session = RealtimeSession(engine, tokenizer, Inbox(arrivals), VirtualClock(), settings)
        session.run(until=9.0)
    own = session.events[-1].metrics
    assert own is not None
    found = _metrics(session.events, Scenario(id="s", video="v", fps=2.0, num_frames=16))
    for name in ("frame_latency", "staleness", "first_token"):
        for figure in ("p50", "p95", "max"):
            if own[name] is not None and f"{name}.{figure}" in found:
                assert found[f"{name}.{figure}"] == pytest.approx(own[name][figure], rel=0.011, abs=1e-5), (name, figure)
    assert found["stall.max"] is None or found["stall.max"] == pytest.approx(own["longest_stall"])
    # 16 frames of one page each in 8 s, and pages of text: the slope is that of the second half.
    assert (
        own["memory"]["peak_bytes"] == found["memory.peak"] > 0 and found["memory.slope"] == own["memory"]["slope_per_minute"] > 0
    )
    assert found["frames.processed"] == own["frames"]["processed"] and found["accounting.violations"] == 0
