"""Turns: what cuts an answer, what closes it, what follows, and what the model is fed then."""

from __future__ import annotations

import itertools

import pytest

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_interruption, encode_prompt
from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.session.arrivals import Arrival, merge
from inference.session.loop import RealtimeSession
from tests.inference.session.streams import FRAMES, RecordingEngine, frames, run, said

PACE = 1 / 8


@pytest.fixture(scope="module")
def spoken_at(engine: RecordingEngine, tokenizer: Tokenizer) -> float:
    """A second at which the model, shown the usual frames, is in the midst of an answer."""
    events = [e for e in run(engine, tokenizer, frames(3), until=3.0).events if e.token is not None]
    pairs = itertools.pairwise(events)
    return next(a.t for a, b in pairs if a.kind == b.kind == "token" and a.t > 0 and round(a.t % 1, 6) < 1 - 2 * PACE)


def _steps(
    engine: RecordingEngine, tokenizer: Tokenizer, *arrivals: Arrival, until: float
) -> tuple[list[list[int]], RealtimeSession]:
    session = run(engine, tokenizer, list(merge(arrivals, [a for a in frames(3) if a.t <= 1.0])), until=until)
    return list(engine.steps), session


def _kinds(session: RealtimeSession, since: float) -> list[str]:
    return [e.kind for e in session.events if e.t >= since and e.kind not in ("frame_in", "end")]


def test_a_stop_closes_the_answer_and_nothing_is_said_until_something_arrives(
    engine: RecordingEngine, tokenizer: Tokenizer, spoken_at: float
) -> None:
    t = spoken_at + PACE / 2
    _, session = _steps(engine, tokenizer, Arrival(t=t, control="stop"), until=3.0)
    later = frames(3)[1].t if t < 1.0 else None
    after = [e for e in session.events if e.t >= t and e.kind != "frame_in"]
    assert [e.kind for e in after[:2]] == ["stop", "turn_interrupted"] and after[1].reason == "stop"
    assert after[1].t - t <= PACE
    between = [e.kind for e in after[2:] if later is None or e.t < later]
    assert set(between) <= {"end"}, "silence, and not one step"


def test_what_follows_a_stop_opens_a_turn_of_the_form_of_training(
    engine: RecordingEngine, tokenizer: Tokenizer, spoken_at: float
) -> None:
    t = spoken_at + PACE / 2
    empty = [*encode_interruption("", tokenizer), tokenizer.silence_id, tokenizer.image_id]
    frame = Arrival(t=1.9, frame=FRAMES[5])
    stops = [Arrival(t=t, control="stop"), Arrival(t=t + 0.01, control="stop")]
    steps, session = _steps(engine, tokenizer, *stops, frame, until=2.5)
    assert any(step[1:] == empty for step in steps)
    assert session.ledger.processed == 3
    asked = Arrival(t=1.9, prompt="left")
    steps, session = _steps(engine, tokenizer, Arrival(t=t, control="stop"), asked, until=2.5)
    turn = encode_interruption("left", tokenizer)
    assert [step[1:] for step in steps].count(turn) == 1, "the closing token is fed once"
    assert [e.reason for e in session.events if e.kind == "turn_interrupted"].count("stop") == 1


def test_a_stop_of_a_silent_session_changes_nothing(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    plain = run(engine, tokenizer, frames(4), until=6.0)
    quiet = [e for e in plain.events if e.kind == "silence"]
    t = quiet[-1].t + PACE / 2
    stopped = run(engine, tokenizer, list(merge([Arrival(t=t, control="stop")], frames(4))), until=6.0)
    assert said(stopped) == said(plain)
    assert "turn_interrupted" not in _kinds(stopped, t)


def test_several_prompts_at_one_boundary_are_turns_of_their_own(
    engine: RecordingEngine, tokenizer: Tokenizer, spoken_at: float
) -> None:
    t = spoken_at + PACE / 2
    steps, session = _steps(engine, tokenizer, Arrival(t=t, prompt="left"), Arrival(t=t, prompt="right"), until=t + 0.5)
    both = [*encode_interruption("left", tokenizer), *encode_interruption("right", tokenizer)]
    assert any(step[1:] == both for step in steps)
    kinds = _kinds(session, t)
    assert kinds[:5] == ["prompt", "turn_interrupted", "turn_start", "prompt", "turn_start"]


def test_a_prompt_that_is_stopped_at_once_is_fed_and_never_answered(
    engine: RecordingEngine, tokenizer: Tokenizer, spoken_at: float
) -> None:
    t = spoken_at + PACE / 2
    frame = Arrival(t=1.9, frame=FRAMES[5])
    steps, _ = _steps(engine, tokenizer, Arrival(t=t, prompt="left"), Arrival(t=t, control="stop"), frame, until=2.2)
    turns = [*encode_interruption("left", tokenizer), *encode_interruption("", tokenizer)]
    assert any(step[1:] == [*turns, tokenizer.silence_id, tokenizer.image_id] for step in steps)


def test_a_frame_in_the_midst_of_a_sentence_is_spliced_in_and_the_sentence_goes_on(
    engine: RecordingEngine, tokenizer: Tokenizer, spoken_at: float
) -> None:
    t = spoken_at + PACE / 2
    steps, session = _steps(engine, tokenizer, Arrival(t=t, frame=FRAMES[7]), until=t + 0.5)
    seen = next(e for e in session.events if e.kind == "frame_during_speech")
    assert seen.t - t <= PACE
    spliced = next(step for step in steps if len(step) == 2 and step[0] != tokenizer.silence_id and step[1] == tokenizer.image_id)
    assert spliced, "the image follows the sampled token, no turn is opened"
    assert "turn_interrupted" not in [e.kind for e in session.events]


def test_a_reset_forgets_everything_and_says_what_a_new_session_says(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    shifted = [Arrival(t=4.0 + PACE + i, frame=FRAMES[10 + i]) for i in range(4)]
    fresh = run(engine, tokenizer, [Arrival(t=a.t - 4.0, frame=a.frame) for a in shifted], until=4.0)
    opening = encode_prompt([Message(role="user", content="")], tokenizer)
    before = [Arrival(t=1.5, prompt="left"), Arrival(t=4.0, control="reset")]
    session = run(engine, tokenizer, list(merge(before, frames(4), shifted)), until=8.0)
    assert [step for step in engine.steps if step == opening] == [opening, opening]
    begin = next(i for i, e in enumerate(session.events) if e.kind == "reset")
    tokens = [e.token for e in session.events[begin:] if e.token is not None]
    expected = [e.token for e in fresh.events if e.token is not None]
    assert tokens[: len(expected)] == expected[: len(tokens)] and len(tokens) > 8
    assert isinstance(engine, StepEngine) and session.ledger.balanced and not session.ledger.pending


def test_prompts_and_stops_cut_an_answer_that_is_computed_ahead_of_its_being_read(
    engine: RecordingEngine, tokenizer: Tokenizer
) -> None:
    spoken = [Arrival(t=0.3 + 0.7 * i, prompt="left") for i in range(4)] + [Arrival(t=3.3, control="stop")]
    arrivals = list(merge(spoken, frames(4)))
    plain = run(engine, tokenizer, arrivals, until=5.0)
    ahead = RecordingEngine(engine.model, graphs=True)
    session = run(ahead, tokenizer, arrivals, until=5.0)
    assert ahead.steps == engine.steps and said(session) == said(plain)
    assert ahead.server is not None and 0 < ahead.server.used < ahead.server.launched
    assert "turn_interrupted" in [e.kind for e in session.events]
