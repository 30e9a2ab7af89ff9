"""Real-time sessions on a virtual clock: what is fed, what is said, when, and what can change it."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_interruption, encode_prompt
from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.evaluation.schema import TraceEvent
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock, WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings
from model.errors import InputError
from tests.inference.session.streams import FRAMES, RecordingEngine, frames, run, said


def test_the_stream_is_the_greedy_continuation_of_what_was_fed(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    session = run(engine, tokenizer, [*frames(8), Arrival(t=7.5, prompt="what colour is the ball ?")], until=12.0)
    steps, chosen = list(engine.steps), [token for _, _, token in said(session)]
    assert {e.kind for e in session.events} >= {"token", "silence", "frame_done", "prompt"}
    assert steps[0] == encode_prompt([Message(role="user", content="")], tokenizer)
    fed = [token for step in steps for token in step]
    whole = StepEngine(engine.model)
    logits = whole.step(whole.new_cache(), fed, whole.encode(FRAMES[:8]), every_row=True).clone()
    banned = [tokenizer.ellipsis_id, tokenizer.video_id, tokenizer.bos_id, tokenizer.pad_id]
    logits[:, [*banned, tokenizer.start_header_id, tokenizer.end_header_id]] = float("-inf")
    closing = {tokenizer.eot_id, tokenizer.eom_id, tokenizer.eos_text_id}
    row = -1
    for number, step in enumerate(steps):
        row += len(step)
        best = int(logits[row].argmax())
        expected = tokenizer.silence_id if best in closing else best
        if number < len(chosen):
            assert chosen[number] == expected
        if number + 1 < len(steps):
            assert steps[number + 1][0] == expected
    assert len(chosen) == len(steps)


def test_frames_follow_the_sampled_token_and_prompts_come_first(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    arrivals = [Arrival(t=0.0, prompt="left"), *frames(2, fps=1000.0)]
    session = run(engine, tokenizer, arrivals, until=0.2)
    opening = len(encode_prompt([Message(role="user", content="")], tokenizer))
    sampled = engine.fed[opening]
    turn = encode_interruption("left", tokenizer)
    spliced = engine.fed[opening + 1 :][: len(turn) + 3]
    assert spliced == [*turn, tokenizer.silence_id, tokenizer.image_id, tokenizer.image_id]
    kinds = [e.kind for e in session.events]
    first = "silence" if sampled == tokenizer.silence_id else "token"
    assert kinds[:2] == ["turn_start", first]
    assert kinds.count("turn_interrupted") == (first == "token")


def test_a_prompt_alone_cuts_the_answer_at_the_next_token(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    plain = run(engine, tokenizer, frames(3), until=3.0)
    tokens = [e for e in plain.events if e.kind == "token"]
    assert tokens, "the model of this test must speak"
    t = tokens[-1].t
    session = run(engine, tokenizer, [*(a for a in frames(3) if a.t <= t), Arrival(t=t, prompt="right")], until=t + 1)
    turn = encode_interruption("right", tokenizer)
    assert any(engine.fed[i : i + len(turn)] == turn for i in range(len(engine.fed)))
    events = [e.kind for e in session.events if e.t >= t]
    assert "turn_interrupted" in events
    cut = next(e for e in session.events if e.kind == "turn_interrupted")
    assert t <= cut.t <= t + 1 / 8 + 1e-9


@given(
    count=st.integers(0, 12),
    fps=st.sampled_from([0.5, 1.0, 2.0, 7.0]),
    pace=st.sampled_from([2.0, 8.0, 20.0]),
    prompt=st.one_of(st.none(), st.floats(0, 4)),
    cut=st.floats(0, 5),
)
def test_nothing_later_changes_what_was_said(
    engine: RecordingEngine, tokenizer: Tokenizer, count: int, fps: float, pace: float, prompt: float | None, cut: float
) -> None:
    prompts = [] if prompt is None else [Arrival(t=prompt, prompt="what is it ?")]
    arrivals = list(merge(prompts, frames(count, fps)))
    settings = SessionSettings(tokens_per_second=pace, max_new_tokens=200)
    whole = run(engine, tokenizer, arrivals, until=5.0, settings=settings)
    stopped = run(engine, tokenizer, arrivals, until=cut, settings=settings)
    blind = run(engine, tokenizer, [a for a in arrivals if a.t < cut], until=5.0, settings=settings)
    assert said(stopped) == said(whole, cut)
    assert said(blind, cut) == said(whole, cut)
    for session in (whole, stopped, blind):
        assert session.ledger.balanced and session.ledger.pending == 0
        arrived = {e.frame for e in session.events if e.kind == "frame_in"}
        settled = [e.frame for e in session.events if e.kind in ("frame_done", "frame_dropped", "frame_rejected")]
        assert sorted(settled) == sorted(arrived)
    assert stopped.ledger.submitted == sum(a.frame is not None and a.t <= min(cut, stopped.clock.now()) for a in arrivals)


def test_tokens_keep_the_pace(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    session = run(engine, tokenizer, frames(10), until=10.0)
    times = [t for t, _, token in said(session) if token is not None]
    assert min(b - a for a, b in itertools.pairwise(times)) >= 1 / 8 - 1e-9


def test_a_model_that_lags_takes_several_frames_at_once(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    settings = SessionSettings(tokens_per_second=1.0, max_new_tokens=50)
    session = run(engine, tokenizer, frames(12, fps=4.0), until=4.0, settings=settings)
    done = [(e.t, e.frame) for e in session.events if e.kind == "frame_done"]
    assert [frame for _, frame in done] == list(range(12))
    assert any(a[0] == b[0] for a, b in itertools.pairwise(done))


def test_backlog_capacity_shape_and_order_are_accounted_for(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    bad = [Arrival(t=0.0, frame=FRAMES[0]), Arrival(t=0.1, frame=torch.zeros(3, 8, 8, dtype=torch.uint8))]
    late = [Arrival(t=0.3, frame=FRAMES[1]), Arrival(t=0.2, frame=FRAMES[2])]
    settings = SessionSettings(tokens_per_second=1.0, max_pending_frames=2, max_frames=3, max_new_tokens=50)
    session = run(
        engine,
        tokenizer,
        [*bad, *late, *(Arrival(t=0.4 + i / 100, frame=FRAMES[i]) for i in range(6))],
        until=6.0,
        settings=settings,
    )
    assert session.ledger.submitted == 10
    assert session.ledger.rejected["shape"] == 1 and session.ledger.rejected["time"] == 1
    assert session.ledger.dropped["backlog"] + session.ledger.rejected["capacity"] >= 1
    assert session.ledger.balanced and session.ledger.pending == 0
    reasons = [e.reason for e in session.events if e.kind in ("frame_dropped", "frame_rejected")]
    assert all(reasons) and len(reasons) == 10 - session.ledger.processed


def test_capacity_rejects_later_frames(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    settings = SessionSettings(tokens_per_second=8.0, max_frames=3, max_new_tokens=300)
    session = run(engine, tokenizer, frames(6), until=6.0, settings=settings)
    assert session.ledger.processed == 3 and session.ledger.rejected == {"capacity": 3}


def test_ends(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    short = SessionSettings(tokens_per_second=8.0, max_new_tokens=3)
    session = run(engine, tokenizer, frames(5), settings=short)
    assert session.end_reason == "max_new_tokens" and len(said(session)) == 3
    idle = SessionSettings(tokens_per_second=100.0, idle_timeout=2.0, max_new_tokens=5000)
    always = RecordingEngine(engine.model)
    session = run(always, tokenizer, frames(2), settings=idle)
    assert session.end_reason in ("idle", "max_new_tokens")
    assert session.events[-1].kind == "end" and session.events[-1].reason == session.end_reason


def test_same_input_same_events(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    first, second = (run(engine, tokenizer, frames(6), until=6.0).events for _ in range(2))
    assert first == second


def test_a_virtual_clock_needs_a_pace(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="tokens_per_second"):
        RealtimeSession(engine, tokenizer, Inbox(), VirtualClock())


@pytest.mark.parametrize("bad", [{"tokens_per_second": 0.0}, {"max_new_tokens": 0}, {"idle_timeout": -1.0}, {"max_frames": 0}])
def test_bad_settings_name_their_field(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        SessionSettings(**bad)  # type: ignore[arg-type]


def test_seconds_count_from_the_beginning_of_the_run(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    engine.steps = []
    clock = VirtualClock()
    session = RealtimeSession(engine, tokenizer, Inbox(), clock, SessionSettings(tokens_per_second=4.0))
    clock.wait_until(3.0, threading.Event())  # a machine that is made ready
    session.run(until=5.0)
    metrics = session.events[-1].metrics
    assert metrics is not None and metrics["seconds"] == 2.0


def test_wall_clock_hears_a_typed_prompt_at_once_and_then_goes_idle(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    engine.steps = []
    clock, inbox = WallClock(), Inbox(frames(1), live=True)
    events: list[TraceEvent] = []
    settings = SessionSettings(idle_timeout=0.4, max_new_tokens=60)
    session = RealtimeSession(engine, tokenizer, inbox, clock, settings, events.append)

    def type_prompt() -> None:
        inbox.push_prompt("what is it ?", clock.now())
        inbox.close()

    timer = threading.Timer(0.1, type_prompt)
    timer.start()
    begin, used = time.monotonic(), time.process_time()
    reason = session.run()
    timer.join()
    assert reason in ("idle", "max_new_tokens")
    assert time.monotonic() - begin < 5
    assert events == session.events
    if reason == "idle":
        heard = next(e for e in events if e.kind == "prompt")
        answered = next(e for e in events if e.kind == "turn_start" and e.text)
        assert answered.t - heard.t < 2.0
        assert time.process_time() - used < 0.6 * (time.monotonic() - begin), "idle time must not be spent computing"
