"""The inbox under threads: back-pressure, prompts that always get through, and waiting that costs nothing."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.session.arrivals import Arrival
from inference.session.clock import WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.queue_policies import make_policy
from inference.session.settings import SessionSettings
from model.errors import InputError
from tests.inference.session.streams import FRAMES, RecordingEngine

FRAME = torch.zeros(3, 8, 8, dtype=torch.uint8)


def _blocking(limit: int) -> Inbox:
    inbox = Inbox(live=True)
    inbox.queue.expect((3, 8, 8), 1000)
    inbox.use_policy(make_policy("block"), limit)
    return inbox


def test_a_blocked_source_waits_for_room_while_prompts_get_through() -> None:
    inbox = _blocking(1)
    assert inbox.push_frame(FRAME, 0.0) == 0
    assert inbox.push_frame(FRAME, 0.1, timeout=0.01) is None and inbox.queue.ledger.submitted == 1
    found: list[int | None] = []
    source = threading.Thread(target=lambda: found.append(inbox.push_frame(FRAME, 0.2)))
    source.start()
    assert inbox.push_prompt("stop", 0.15) and inbox.push_stop(0.3)
    drained = inbox.drain(1.0)
    source.join(5)
    assert [a.prompt or a.control for a in drained.spoken] == ["stop", "stop"]
    assert [frame.number for frame in drained.frames] == [0] and found == [1]
    assert inbox.queue.ledger.balanced and inbox.queue.ledger.pending == 2


def test_whoever_waits_gives_up_when_nothing_will_be_taken_any_more() -> None:
    drop_oldest = make_policy("drop_oldest")
    ways = (Inbox.close, Inbox.end, lambda inbox: inbox.finish(9.0), lambda inbox: inbox.use_policy(drop_oldest, 1))
    for finish in ways:
        inbox = _blocking(1)
        inbox.push_frame(FRAME, 0.0)
        found: list[int | None] = []
        source = threading.Thread(target=lambda inbox=inbox, found=found: found.append(inbox.push_frame(FRAME, 0.1)))
        source.start()
        finish(inbox)
        source.join(5)
        assert not source.is_alive() and found in ([None], [1]) and inbox.queue.ledger.balanced


def test_a_schedule_waits_too_and_loses_nothing() -> None:
    inbox = Inbox([Arrival(t=i / 10, frame=FRAME) for i in range(7)])
    inbox.queue.expect((3, 8, 8), 1000)
    inbox.use_policy(make_policy("block"), 3)
    taken = [[frame.number for frame in inbox.drain(1.0).frames] for _ in range(4)]
    assert taken == [[0, 1, 2], [3, 4, 5], [6], []] and inbox.exhausted


def test_what_is_known_of_the_future_stays_there() -> None:
    inbox = Inbox([Arrival(t=2.0, frame=FRAME)], live=True)
    inbox.push_prompt("later", 1.5)
    assert inbox.next_time() == 1.5 and not inbox.drain(1.0)
    assert inbox.drain(1.5).spoken and inbox.next_time() == 2.0 and not inbox.exhausted
    inbox.close()
    assert not inbox.push_prompt("too late", 3.0) and inbox.push_frame(FRAME, 3.0) is None
    assert inbox.drain(2.0).frames and inbox.exhausted


def test_many_sources_are_accounted_for() -> None:
    inbox = Inbox(live=True)
    inbox.queue.expect((3, 8, 8), 1000)
    inbox.use_policy(make_policy("drop_oldest"), 4)

    def push() -> None:
        for _ in range(200):
            inbox.push_frame(FRAME, 0.0)

    sources = [threading.Thread(target=push) for _ in range(4)]
    for source in sources:
        source.start()
    taken = 0
    while any(source.is_alive() for source in sources) or inbox.queue.waiting:
        frames = inbox.drain(1.0).frames
        assert inbox.queue.ledger.balanced
        inbox.settle(frames, 0)
        taken += len(frames)
    ledger = inbox.queue.ledger
    assert ledger.submitted == 800 == taken + ledger.dropped["backlog"] and ledger.pending == 0


def test_an_idle_session_uses_no_processor_and_ends_when_told(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    engine.steps = []
    inbox, clock = Inbox(live=True), WallClock()
    settings = SessionSettings(max_new_tokens=400, tokens_per_second=200.0)
    session = RealtimeSession(engine, tokenizer, inbox, clock, settings)
    thread = threading.Thread(target=session.run)
    thread.start()
    silent = threading.Event()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (session.events and session.events[-1].kind == "silence"):
        silent.wait(0.02)
    used = time.process_time()
    silent.wait(0.5)
    assert time.process_time() - used < 0.1, "waiting must not be polling"
    number = inbox.push_frame(FRAMES[0], clock.now())
    while time.monotonic() < deadline and session.ledger.processed == 0:
        silent.wait(0.01)
    assert number == 0 and session.ledger.processed == 1
    inbox.end("stopped")
    thread.join(10)
    assert not thread.is_alive() and session.end_reason == "stopped" and session.events[-1].metrics is not None
    assert inbox.push_frame(FRAMES[1], clock.now()) is None and session.ledger.submitted == 1


def test_arrivals_that_cannot_be_are_named() -> None:
    with pytest.raises(InputError, match="must be one of"):
        Arrival(t=1.0)
    with pytest.raises(InputError, match="'hello' comes at nan s"):
        Inbox(live=True).push_prompt("hello", float("nan"))
    with pytest.raises(InputError, match="control is 'jump'; use one of stop, reset"):
        Arrival(t=1.0, control="jump")
    inbox = Inbox(live=True)
    for t in (float("nan"), float("inf"), -1.0):
        assert inbox.push_frame(FRAME, t) is not None
    assert inbox.queue.ledger.rejected == {"time": 3} and inbox.queue.ledger.balanced
