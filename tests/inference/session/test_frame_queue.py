"""Frames that wait: what each policy drops, and the accounting at every instant over random histories."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.session.frame_queue import FrameQueue, PendingFrame
from inference.session.queue_policies import QUEUE_POLICIES, make_policy
from model.errors import InputError

SHAPE = (3, 8, 8)


def _pixels(level: int) -> torch.Tensor:
    return torch.full(SHAPE, level, dtype=torch.uint8)


def _queue(policy: str, limit: int) -> FrameQueue:
    queue = FrameQueue(make_policy(policy), limit)
    queue.expect(SHAPE, 1000)
    return queue


def _waiting(queue: FrameQueue) -> list[int]:
    return [frame.number for frame in queue.waiting]


@pytest.mark.parametrize(
    ("policy", "left", "dropped"),
    [
        ("drop_oldest", [3, 4, 5], {"backlog": 3}),
        ("drop_newest", [0, 1, 2], {"backlog": 3}),
        ("coalesce", [2, 5], {"coalesced": 4}),
        ("degrade", [0, 1, 3], {"degraded": 3}),  # backlog at two of three: every second, then every fourth
    ],
)
def test_each_policy_by_hand(policy: str, left: list[int], dropped: dict[str, int]) -> None:
    queue = _queue(policy, 3)
    for i, level in enumerate((10, 11, 10, 200, 201, 200)):
        queue.submit(float(i), _pixels(level))
    assert _waiting(queue) == left and queue.ledger.dropped == dropped and queue.ledger.balanced


def test_degraded_frames_recover_when_the_backlog_is_gone() -> None:
    queue = _queue("degrade", 4)
    kept = []
    for i in range(40):
        queue.submit(float(i), _pixels(i))
        if i >= 20:  # the session keeps up again
            kept += [frame.number for frame in queue.take(99.0)]
    assert queue.ledger.dropped["degraded"] > 10
    assert kept[-8:] == list(range(32, 40)), "all frames again"


def test_a_source_under_block_waits_and_nothing_is_dropped() -> None:
    queue = _queue("block", 2)
    for i in range(2):
        assert queue.has_room
        queue.submit(float(i), _pixels(i))
    assert not queue.has_room and not queue.ledger.dropped
    queue.take(0.0)
    assert queue.has_room


def test_frames_in_the_encoder_hold_back_those_behind_them_unless_the_session_is_idle() -> None:
    queue = _queue("drop_oldest", 9)
    for i in range(3):
        queue.submit(float(i), _pixels(i))
    queue.waiting[1].ticket = _Ticket(ready=False)
    assert [frame.number for frame in queue.take(9.0, ready_only=True)] == [0]
    assert [frame.number for frame in queue.take(9.0)] == [1, 2]


def test_unknown_policies_are_named() -> None:
    with pytest.raises(InputError, match="queue_policy is 'lifo'; use one of drop_oldest"):
        make_policy("lifo")


class _Ticket:
    def __init__(self, ready: bool) -> None:
        self.ready, self.cancelled = ready, 0

    def features(self) -> torch.Tensor:
        raise AssertionError("a queue does not look at features")

    def cancel(self) -> None:
        self.cancelled += 1


class FrameAccounting(RuleBasedStateMachine):
    """Any history: each frame ends exactly once, and the sums hold in between."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FrameQueue(limit=3)
        self.now = 0.0
        self.fates: Counter[int] = Counter()
        self.processed: list[int] = []
        self.tickets: dict[int, _Ticket] = {}

    @rule(step=st.sampled_from([-1.0, 0.0, 0.5, float("nan")]), level=st.integers(0, 3), good=st.booleans(), encode=st.booleans())
    def submit(self, step: float, level: int, good: bool, encode: bool) -> None:
        if not self.queue.has_room:
            return
        self.now = max(self.now, self.now + step)
        frame = self.queue.submit(self.now + min(step, 0.0), _pixels(level) if good else _pixels(level)[:, :4])
        if encode and frame in self.queue.waiting:
            frame.ticket = self.tickets[frame.number] = _Ticket(ready=level > 1)

    @rule(most=st.sampled_from([None, 1, 2]), ready=st.booleans(), back=st.sampled_from([0.0, 0.5]))
    def take(self, most: int | None, ready: bool, back: float) -> None:
        taken = self.queue.take(self.now - back, most, ready_only=ready)
        assert all(frame.t <= self.now - back and (frame.ready or not ready) for frame in taken)

    @precondition(lambda self: self.queue.in_flight)
    @rule(share=st.floats(0, 1), settle=st.booleans())
    def end_flight(self, share: float, settle: bool) -> None:
        some: list[PendingFrame] = self.queue.in_flight[: 1 + int(share * len(self.queue.in_flight))]
        if settle:
            self.queue.settle(some, kept=len(self.processed) % 5)
            self.processed += [frame.number for frame in some]
        else:
            self.queue.give_up(some, "reset", self.now)

    @rule(name=st.sampled_from(QUEUE_POLICIES), limit=st.integers(1, 4))
    def change_policy(self, name: str, limit: int) -> None:
        self.queue.use(make_policy(name), limit)

    @rule(most=st.integers(1, 9))
    def learn_what_is_good(self, most: int) -> None:
        self.queue.expect(SHAPE, most)

    @rule()
    def end(self) -> None:
        self.queue.discard("stream_end", self.now)
        assert self.queue.ledger.pending == 0

    @invariant()
    def balanced(self) -> None:
        queue, ledger = self.queue, self.queue.ledger
        assert ledger.balanced and ledger.pending == len(queue.waiting) + len(queue.in_flight)
        assert len(queue.waiting) <= queue.limit
        numbers = [frame.number for frame in queue.waiting]
        assert numbers == sorted(numbers)
        news = list(queue.news)
        queue.news.clear()
        for event in news:
            if event.kind != "frame_in":
                assert event.reason
                self.fates[event.frame or 0] += 1
        ended = Counter(self.processed) + self.fates
        alive = {frame.number for frame in (*queue.waiting, *queue.in_flight)}
        assert all(count == 1 for count in ended.values())
        assert set(ended) | alive == set(range(ledger.submitted)) and not set(ended) & alive
        for number, ticket in self.tickets.items():
            assert ticket.cancelled == (number in ended and number not in self.processed)


TestFrameAccounting = FrameAccounting.TestCase
TestFrameAccounting.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
