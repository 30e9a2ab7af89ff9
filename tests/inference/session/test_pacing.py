"""When tokens may be said, and that no clock changes what is said."""

from __future__ import annotations

import itertools
import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.text.realtime import slot_lengths
from data_pipeline.text.template import encode_turns
from data_pipeline.text.tokenizer import Tokenizer
from data_pipeline.world.scene import eventful
from data_pipeline.world.tasks.realtime import realtime_messages
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.pacing import Pacer, trained_pace
from inference.session.settings import SessionSettings
from model.errors import InputError
from tests.inference.session.streams import FRAMES, BusyWallClock, RecordingEngine, frames, run, said


@settings(max_examples=8)
@given(
    delays=st.lists(st.floats(0, 0.002), min_size=1, max_size=7),
    pace=st.sampled_from([{"tokens_per_second": 6.0}, {"tokens_per_frame": 4, "frame_seconds": 0.5}]),
    jitter=st.lists(st.floats(0, 0.4), min_size=6, max_size=6),
    prompt=st.floats(0, 3),
    stop=st.floats(0, 3),
)
def test_virtual_and_wall_clock_say_the_same(
    engine: RecordingEngine,
    tokenizer: Tokenizer,
    delays: list[float],
    pace: dict[str, float],
    jitter: list[float],
    prompt: float,
    stop: float,
) -> None:
    shown = [Arrival(t=i / 2 + late, frame=FRAMES[i]) for i, late in enumerate(jitter)]
    spoken = sorted([Arrival(t=prompt, prompt="left"), Arrival(t=stop, control="stop")], key=lambda arrival: arrival.t)
    arrivals = list(merge(spoken, shown))
    manners = SessionSettings(max_new_tokens=60, **pace)  # type: ignore[arg-type]
    virtual = run(engine, tokenizer, arrivals, until=4.0, settings=manners)
    fed = engine.steps
    engine.steps = []
    wall = RealtimeSession(engine, tokenizer, Inbox(arrivals), BusyWallClock(delays), manners)
    wall.run(until=4.0)
    assert engine.steps == fed
    assert [one[1:] for one in said(wall)] == [one[1:] for one in said(virtual)]


@pytest.mark.parametrize("fps", [1.0, 0.4, 3.0])
def test_a_slot_holds_no_more_tokens_than_in_training(engine: RecordingEngine, tokenizer: Tokenizer, fps: float) -> None:
    manners = SessionSettings(tokens_per_frame=3, frame_seconds=1.0, max_new_tokens=60)
    session = run(engine, tokenizer, frames(8, fps), until=8.0, settings=manners)
    events = [e for e in session.events if e.kind in ("frame_done", "token", "silence")]
    slots: list[list[float]] = []
    for event in events:
        if event.kind == "frame_done" or not slots:
            slots.append([])
        if event.token is not None:
            slots[-1].append(event.t)
    most = 3 * math.ceil(1 / fps)
    assert max(len(slot) for slot in slots[:-1]) in range(1, most + 1)  # nothing ends the last one
    times = sorted(t for slot in slots for t in slot)
    assert min(b - a for a, b in itertools.pairwise(times)) >= 1 / 3 - 1e-9


def test_a_session_that_lags_catches_up_within_a_token_or_starts_over_from_now() -> None:
    clock = VirtualClock()
    pacer = Pacer(clock, SessionSettings(tokens_per_second=10.0))
    wake = threading.Event()
    clock.wait_until(0.15, wake)  # computing took half a token longer than the pace
    pacer.reach(pacer.due() or 0.0)
    assert pacer.time == 0.1 and pacer.due() == 0.2
    clock.wait_until(0.9, wake)
    pacer.reach(0.2)
    assert pacer.time == 0.9 and pacer.due() == 1.0


def test_trained_rate_of_a_checkpoint() -> None:
    pace = trained_pace({"emission": {"tokens_per_frame": 16, "fps": 2.0}}, "c")
    assert (pace.tokens_per_frame, pace.frame_seconds) == (16, 0.5)
    with pytest.raises(InputError, match="c does not say at what rate"):
        trained_pace({}, "c")
    for bad in ({"tokens_per_frame": 0, "fps": 1}, {"tokens_per_frame": 4, "fps": 0}, {"fps": 1}, 7):
        with pytest.raises(InputError, match="c has the emission"):
            trained_pace({"emission": bad}, "c")


def test_slots_of_a_training_row(tokenizer: Tokenizer) -> None:
    frame, silence, end, word = tokenizer.video_id, tokenizer.silence_id, tokenizer.eot_id, 1
    row = [5, 5, silence, frame, word, word, silence, frame, silence, frame, word, end, 7, 7, silence, frame, silence]
    assert slot_lengths(row, tokenizer) == [3, 1, 1, 1]


def test_a_session_at_the_pace_of_its_training_data_fills_no_slot_more_than_they_do(
    engine: RecordingEngine, tokenizer: Tokenizer
) -> None:
    clip = eventful(7)
    (turn,) = encode_turns(realtime_messages(clip, None), tokenizer)
    trained = slot_lengths([*turn.source, *turn.target], tokenizer)
    assert len(trained) == clip.num_frames and min(trained) == 1 < max(trained)
    manners = SessionSettings(tokens_per_frame=max(trained), max_new_tokens=400)
    session = run(engine, tokenizer, frames(8), until=8.0, settings=manners)
    said_in_slots = session.log.metrics.slot_tokens
    assert said_in_slots.count == 7 and 1 <= said_in_slots.largest <= max(trained)


def test_one_pace_only() -> None:
    with pytest.raises(InputError, match="both given"):
        SessionSettings(tokens_per_second=1.0, tokens_per_frame=2)
    assert VirtualClock(3.0).now() == 3.0
