"""The file of a latency profile, and what it does to a stream."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_interruption, encode_prompt
from inference.benchmark.models import TINY, random_model
from inference.benchmark.streams import Stream, WideTokenizer, pictures_for, run_simulated
from inference.engine import StepEngine
from inference.evaluation.latency.decisions import Script, scripted
from inference.evaluation.latency.profile import LatencyProfile, interpolate, load_profile, save_profile
from inference.evaluation.schema import Trace, TraceEvent
from inference.evaluation.suites.system.events import read_stream
from inference.session.arrivals import Arrival
from inference.session.clock import VirtualClock
from inference.session.costs import SimulatedEncoder, StepSize
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings
from model.errors import InputError

PROFILE = LatencyProfile(
    encode=[(1, 0.1), (2, 0.15)],
    steps=[(1, 0.04), (2, 0.05), (10, 0.09)],
    speaking_seconds=0.02,
    ahead_seconds=0.02,
    frames_a_call=2,
)
FREE = LatencyProfile(encode=[(1, 0.0)], steps=[(1, 0.0)], speaking_seconds=0.0)


@pytest.fixture(scope="module")
def engine() -> StepEngine:
    return StepEngine(random_model(TINY, "cpu", torch.float32))


def _run(engine: StepEngine, stream: Stream, profile: LatencyProfile) -> Trace:
    tokenizer = WideTokenizer(TINY.text.vocab_size)
    with torch.inference_mode():
        return run_simulated(engine, tokenizer, stream, pictures_for(engine, 4), profile)


def _times(trace: Trace, kind: str) -> list[float]:
    return [event.t for event in trace.events if event.kind == kind and (kind != "token" or event.token is not None)]


def test_interpolation() -> None:
    points = [(1, 1.0), (3, 2.0), (7, 4.0)]
    assert [interpolate(points, n) for n in (0, 1, 2, 3, 5, 7, 9)] == [1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0]
    assert interpolate([(4, 2.0)], 100) == 2.0
    assert interpolate([(96, 3.0), (128, 2.9)], 4000) == 2.9  # a longer step is never quicker


def test_a_step_by_hand() -> None:
    profile = dataclasses.replace(
        PROFILE, new_frame_seconds=0.001, kept_rows=100, kept_frames=10, row_seconds=1e-5, frame_seconds=1e-4
    )
    profile = dataclasses.replace(profile, prompt_seconds=0.003)
    # 6 rows: 0.05 + 4 * 0.005; two frames, one prompt; 100 rows and 10 frames more than measured.
    size = StepSize(rows=6, new_frames=2, kept_rows=200, kept_frames=20, speaking=False, prompts=1)
    assert profile.step_seconds(size) == pytest.approx(0.07 + 0.002 + 0.003 + 0.001 + 0.001)
    assert profile.step_seconds(dataclasses.replace(size, rows=1, new_frames=0, prompts=0, speaking=True)) == pytest.approx(0.022)
    assert dataclasses.replace(profile, encode_overhead_seconds=-0.01).encode_seconds(2) == pytest.approx(0.14)
    beside = dataclasses.replace(profile, encode_speaking_seconds=0.3)
    assert beside.encode_seconds(1, speaking=True) == pytest.approx(0.4) and beside.encode_seconds(1) == pytest.approx(0.1)
    # A step of one row takes 0.04 s alone, 0.02 launched ahead: the rest is the host's.
    assert profile.hidden_seconds() == pytest.approx(0.02)
    assert dataclasses.replace(profile, ahead_seconds=0.0).hidden_seconds() == 0


def test_a_stream_by_hand(engine: StepEngine) -> None:
    stream = Stream("s", 4, 1.0, Script({1: 3}, answer=2), [(2.5, "what happens now ?")])
    trace = _run(engine, stream, PROFILE)
    rows = len(encode_prompt([Message(role="user", content="")], WideTokenizer(TINY.text.vocab_size)))
    assert _times(trace, "silence")[0] == pytest.approx(0.05 + (rows - 2) * 0.005)  # the opening turn
    done = _times(trace, "frame_done")
    # Encoding takes 0.1 s and the step of two rows 0.05.
    assert done[1:] == pytest.approx([1.15, 2.15, 3.15])
    tokens = _times(trace, "token")
    # The first with its frame; then one row that nobody had launched: it continues speech, at the pace of speech.
    assert tokens[:3] == pytest.approx([1.15, 1.17, 1.19])
    rows = 1 + len(encode_interruption("what happens now ?", WideTokenizer(TINY.text.vocab_size)))
    assert tokens[3] == pytest.approx(2.5 + 0.05 + (rows - 2) * 0.005)


def test_what_is_launched_ahead_ends_before_anything_else_is_fed(engine: StepEngine) -> None:
    stream = Stream("s", 4, 1.0, Script({0: 1000}, answer=0), [(1.9, "what happens now ?")])
    slow = dataclasses.replace(PROFILE, ahead_seconds=0.5)
    answered = []
    for profile in (PROFILE, slow):
        events = _run(engine, stream, profile).events
        cut = next(place for place, event in enumerate(events) if event.kind == "turn_interrupted")
        answered.append(next(event.t - events[cut].t for event in events[cut:] if event.kind == "silence"))
    # Cut at a token boundary: of the step that was launched there all of its 0.02 or 0.5 s are left.
    assert answered[1] - answered[0] == pytest.approx(0.48)


def test_beside_speech_the_encoder_is_slow_only_while_the_decoder_works() -> None:
    costs = dataclasses.replace(PROFILE, encode_speaking_seconds=0.3)  # 0.1 s alone, 0.4 beside speech without pause
    pixels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    found = []
    for speech in (
        [],
        [(0.0, 5.0)],
        [(0.0, 1.2)],
        [(1.05, 1.15)],
        [(1.0, 1.1), (1.1, 1.2)],
        [(n / 20, n / 20 + 0.02) for n in range(60)],
    ):
        encoder = SimulatedEncoder(costs, lambda: 10.0, lambda frames: frames)
        ticket = encoder.submit(pixels, 1.0)
        for begin, end in speech:
            encoder.beside(begin, end)
        found.append(ticket.ready_at - 1.0)
    # Alone; beside speech all the time; for 0.2 s, half of the work, and 0.05 alone; 0.05 alone, 0.1 for a quarter, 0.025 alone;
    # as the third; tokens of 0.02 s every 0.05: 0.05 and 0.3 of the work in each turn, so 0.7 in 0.1, 0.05 in the third token,
    # 0.25 alone.
    assert found == pytest.approx([0.1, 0.4, 0.25, 0.175, 0.25, 0.145])


def _speaking(engine: StepEngine, costs: LatencyProfile, pace: float | None) -> list[TraceEvent]:
    """Events of a session that speaks without end from its first frame on and sees another at 1 s."""
    frames, tokenizer = pictures_for(engine, 2), WideTokenizer(TINY.text.vocab_size)
    session = RealtimeSession(
        engine,
        tokenizer,
        Inbox([Arrival(t=0.0, frame=frames[0]), Arrival(t=1.0, frame=frames[1])]),
        VirtualClock(costs=costs),
        SessionSettings(tokens_per_second=pace, encode_on_arrival=True),
    )
    with torch.inference_mode():
        engine.drive([scripted(session, Script({0: 1000}), session.stepping(3.0))])
    return session.events


def test_a_frame_beside_speech_by_hand(engine: StepEngine) -> None:
    costs = dataclasses.replace(PROFILE, encode_speaking_seconds=0.3)
    found = [
        next(event.t for event in _speaking(engine, costs, pace) if event.kind == "frame_done" and event.frame == 1)
        for pace in (None, 4.0)
    ]
    # Without pause: features at 1.4, a token boundary at most 0.02 later; there the step launched ahead takes 0.02, beside which
    # the host prepares the step of 0.05 for 0.02.
    assert 1.45 - 1e-9 <= found[0] <= 1.47
    # Paced: the token that is launched at 1.0 takes 3/4 of its 0.02 from the encoder, features at 1.115; a boundary at 1.25,
    # where nothing is under way, and the step of 0.05.
    assert found[1] == pytest.approx(1.3)


def test_paced_tokens_that_were_launched_ahead_are_there_at_once(engine: StepEngine) -> None:
    for ahead, late in ((0.02, 0.0), (0.0, 0.02)):
        events = _speaking(engine, dataclasses.replace(PROFILE, ahead_seconds=ahead), 4.0)
        tokens = [event.t for event in events if event.kind == "token" and event.token is not None]
        # The first two come with a frame and without a launch, the fifth with the frame at 1 s.
        assert len(tokens) > 7 and all(t % 0.25 == pytest.approx(late) for t in (*tokens[2:4], *tokens[7:]))


def test_no_costs_is_no_profile(engine: StepEngine) -> None:
    """With a pace, a profile of nothing changes nothing."""
    frames, tokenizer = pictures_for(engine, 4), WideTokenizer(TINY.text.vocab_size)
    found: list[list[TraceEvent]] = []
    for costs in (None, FREE):
        arrivals = [Arrival(t=float(n), frame=frames[n]) for n in range(4)]
        pace = SessionSettings(tokens_per_second=4, encode_on_arrival=costs is not None)
        session = RealtimeSession(engine, tokenizer, Inbox(arrivals), VirtualClock(costs=costs), pace)
        session.run(until=4.0)
        found.append([dataclasses.replace(event, metrics=None) for event in session.events])
    assert found[0] == found[1] and len(found[0]) > 20


COSTS = st.floats(0, 0.4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    COSTS,
    COSTS,
    st.floats(0.001, 0.2),
    COSTS,
    st.sampled_from([0.5, 1.0, 4.0]),
    st.dictionaries(st.integers(0, 7), st.integers(1, 6)),
    st.lists(st.floats(0, 6), max_size=2),
)
def test_invariants(
    engine: StepEngine,
    encode: float,
    step: float,
    speak: float,
    ahead: float,
    fps: float,
    speech: dict[int, int],
    asked: list[float],
) -> None:
    profile = LatencyProfile(
        encode=[(1, encode), (4, 2 * encode)],
        steps=[(1, step + 0.001), (9, 2 * step + 0.001)],
        speaking_seconds=speak,
        ahead_seconds=ahead,
    )
    stream = Stream("s", 8, fps, Script(speech, answer=3), [(t, "what happens now ?") for t in sorted(asked)])
    trace = _run(engine, stream, profile)
    assert trace == _run(engine, stream, profile)
    said = [event.t for event in trace.events if event.kind in ("token", "silence", "frame_done")]
    assert said == sorted(said)
    facts = read_stream(trace)
    assert not facts.violations
    assert all(wait >= min(encode, 2 * encode) - 1e-9 for wait in facts.frame_latency)
    frames: dict[str, Any] = trace.engine["frames"]
    assert frames["submitted"] == frames["processed"] + sum(frames["dropped"].values()) + sum(frames["rejected"].values())


def test_frames_that_come_while_the_encoder_works_share_its_next_call() -> None:
    encoder = SimulatedEncoder(PROFILE, lambda: 10.0, lambda frames: frames)
    pixels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    tickets = [encoder.submit(pixels, t) for t in (0.0, 0.02, 0.04, 0.06, 5.0)]
    # 0 to 0.1; two from 0.1 on (0.15 s); the fourth from 0.25 on; the fifth alone.
    assert [ticket.ready_at for ticket in tickets] == pytest.approx([0.1, 0.25, 0.25, 0.35, 5.1])
    waiting = [encoder.submit(pixels, t) for t in (6.0, 6.01, 6.02)]
    waiting[1].cancel()
    assert waiting[2].ready_at == pytest.approx(6.2) and not waiting[1].ready and waiting[0].ready
    assert waiting[0].features().shape == (1, 3, 4, 4)


def test_the_file_round_trips(tmp_path: Path) -> None:
    save_profile(tmp_path / "p.json", PROFILE)
    assert load_profile(tmp_path / "p.json") == PROFILE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, r"does not say format 'moss-latency/1'; give a file that .moss bench latency. wrote"),
        ({"speed": 1}, "field speed is not known"),
        ({"speaking_seconds": -1}, "field speaking_seconds is -1; it must be a float, not negative"),
        ({"steps": []}, r"field steps is \[\]; it must be a list of \[size, seconds\]"),
        ({"steps": [[2, 1.0], [1, 1.0]]}, r"field steps has the sizes \[2, 1\]; they must grow"),
        ({"encode": [[1, "x"]]}, "field encode seconds is 'x'"),
        ({"frames_a_call": 0}, "field frames_a_call is 0; it must be at least 1"),
        ({"speaking_seconds": 0.0}, "field speaking_seconds is 0.0; it must be above 0"),
        ({"kept_rows": 1.5}, "field kept_rows is 1.5; it must be a int"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "p.json"
    save_profile(path, PROFILE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_profile(path)
    path.write_text("{")
    with pytest.raises(InputError, match=r"cannot be read as a latency profile .*moss bench latency"):
        load_profile(path)
