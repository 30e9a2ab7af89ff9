"""Up to 64 sessions on one engine: each round feeds all that are ready."""

from __future__ import annotations

import dataclasses
import math
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from inference.cache.policies.policy import PageBounds
from inference.engine import StepEngine, StepRequest, UnchosenError
from inference.graphs.runner import BUCKETS, ROW_BUCKETS
from inference.sampling import Sampler
from inference.serving.admission import AdmissionError, KVBudget
from inference.serving.clock import SharedVirtualClock
from inference.serving.rounds import RoundLimits, plan_round, split_passes
from inference.session.clock import Clock
from inference.session.loop import Waiting
from model.errors import InputError

T = TypeVar("T")
MAX_SESSIONS = 64
_PROMPTED = 2
"""Sessions that are expected to hear prompts of more than 64 rows in one round; those of more run without a graph."""

Cooperating = Generator[StepRequest | list[StepRequest] | Waiting, Any, T]
"""A session: yields what to feed (or several requests of forks), or until when it waits; is sent the answer, or None."""


class LinkedEvent(threading.Event):
    """Sets another event too, so that one thread can wait for many."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def set(self) -> None:
        """Set both."""
        super().set()
        self._other.set()


class HasInbox(Protocol):
    """What `SessionPool.submit_session` takes: `inference.session.RealtimeSession`."""

    inbox: Any

    def cooperating(self, until: float | None = None) -> Generator[StepRequest | Waiting, Any, str]:
        """The session as a generator that never blocks."""
        ...


@dataclass
class Ticket(Generic[T]):
    """One session in the pool."""

    name: str
    need: PageBounds
    result: T | None = None
    error: Exception | None = None
    """What ended it before its time; others go on."""
    traceback: str = ""
    done: bool = False
    rounds: int = 0
    """Rounds in which it was fed."""


@dataclass(eq=False)
class _Feeding:
    """A request of which `rows` rows and `frames` frames have been fed."""

    request: StepRequest
    brings_frame: list[bool]
    rows: int = 0
    frames: int = 0
    answer: Any = None

    @property
    def done(self) -> bool:
        return self.rows == len(self.brings_frame)


@dataclass(eq=False)
class _Member:
    ticket: Ticket[Any]
    generator: Cooperating[Any]
    feedings: list[_Feeding] = field(default_factory=list)
    several: bool = False
    waiting: Waiting | None = None


class SessionPool:
    """Runs sessions that join and leave at any round. One thread calls `run` or `run_round`; others may submit sessions and
    push into their inboxes.

    Args:
        engine: its store holds all sessions.
        budget: pages that sessions may be promised; None lets every session in (the store must then be able to grow).
        limits: of a round.
        clock: the one on which sessions that wait are woken; only needed for sessions that wait.
        max_sessions: sessions that run at the same time.
        when_full: `refuse` a session that does not fit now, or let it `wait` in line.
    """

    def __init__(
        self,
        engine: StepEngine,
        budget: KVBudget | None = None,
        *,
        limits: RoundLimits | None = None,
        clock: Clock | None = None,
        max_sessions: int = MAX_SESSIONS,
        when_full: str = "refuse",
    ) -> None:
        if not 1 <= max_sessions <= MAX_SESSIONS:
            raise InputError(f"max_sessions is {max_sessions}; it must lie in 1..{MAX_SESSIONS}")
        if when_full not in ("refuse", "wait"):
            raise InputError(f"when_full is {when_full!r}; use refuse or wait")
        self.engine, self.budget, self.limits = engine, budget, limits or RoundLimits()
        self.clock, self.max_sessions, self.when_full = clock, max_sessions, when_full
        self.wake = threading.Event()
        self.rounds = 0
        self._lock = threading.RLock()
        """Held for a round, and by whoever submits."""
        self._closed = False
        self._members: deque[_Member] = deque()
        """Longest unserved first."""
        self._line: deque[tuple[Ticket[Any], Callable[[], Cooperating[Any]]]] = deque()

    @property
    def running(self) -> int:
        """Sessions that are in."""
        return len(self._members)

    @property
    def in_line(self) -> int:
        """Sessions that wait to come in."""
        return len(self._line)

    def prepare(self, sampler: Sampler) -> None:
        """Capture the CUDA graphs of rounds of any number of sessions, before the first one needs them.

        Args:
            sampler: of the kind that the sessions use (greedy or not, and its rules); it does not change.
        """
        most = next(bucket for bucket in BUCKETS if bucket >= self.max_sessions)
        for sessions in (bucket for bucket in BUCKETS if bucket <= most):
            # Wide steps are those of prompts, which rarely come to several sessions in one round.
            sizes = ROW_BUCKETS if sessions <= _PROMPTED else BUCKETS
            self.engine.prepare([sampler] * sessions, [rows for rows in sizes if rows >= sessions])

    def submit(self, start: Callable[[], Cooperating[T]], need: PageBounds, name: str = "") -> Ticket[T]:
        """Let a session in, or put it in line.

        Args:
            start: makes the session; called when it comes in.
            need: the most that it will ever hold: `CachePolicy.bounds`.
            name: for messages.

        Raises:
            AdmissionError: it does not fit: never, or not now where the pool refuses.
        """
        ticket: Ticket[T] = Ticket(name, need)
        with self._lock:
            reason, ever = self._obstacle(need)
            if reason and not (ever and self.when_full == "wait"):
                raise AdmissionError(f"{name}: {reason}" if name else reason)
            if reason or self._line:  # who came earlier comes in earlier
                self._line.append((ticket, start))
            else:
                self._let_in(ticket, start)
            self.wake.set()
        return ticket

    def submit_session(self, session: HasInbox, need: PageBounds, name: str = "", *, until: float | None = None) -> Ticket[str]:
        """`submit` for a `RealtimeSession` that runs on this pool's clock."""
        wake = LinkedEvent(self.wake)
        old, session.inbox.wake = session.inbox.wake, wake
        if old.is_set():
            wake.set()
        return self.submit(lambda: session.cooperating(until), need, name)

    def run(self, *, until_closed: bool = False) -> None:
        """Rounds until no session is left; waits, without polling, while all of them wait.

        Args:
            until_closed: wait for sessions from other threads, until `close`; those that are in then come to their end.

        Raises:
            AdmissionError: sessions stand in line for pages that somebody else has been promised.
        """
        while True:
            if self.run_round():
                continue
            if self._members or self._line:
                self._rest()
            elif until_closed and not self._closed:
                self.wake.wait()
            else:
                return

    def close(self) -> None:
        """Nothing more will be submitted: `run(until_closed=True)` returns when the last session has ended. From any thread."""
        self._closed = True
        self.wake.set()

    def run_round(self) -> int:
        """Wake whom it is time to wake, feed all that are ready, send them their answers.

        Returns:
            Sessions that were fed.
        """
        with self._lock:
            return self._round()

    def _round(self) -> int:
        self.wake.clear()
        self._wake_sleepers()
        waiting = [(member, feeding) for member in self._members for feeding in member.feedings if not feeding.done]
        if not waiting:
            return 0
        plan = plan_round([feeding.brings_frame[feeding.rows :] for _, feeding in waiting], self.limits)
        portions = [(*waiting[portion.request], portion.rows, portion.frames) for portion in plan]
        failed = self._feed(portions)
        self.rounds += 1
        if isinstance(self.clock, SharedVirtualClock):
            self.clock.spend_round()
        served = list({id(member): member for member, *_ in portions}.values())
        for member in served:
            # To the end of the line: the next round begins with those that were not served.
            self._members.remove(member)
            self._members.append(member)
            member.ticket.rounds += 1
            if member in failed:
                self._advance(member, failed[member])
            elif all(feeding.done for feeding in member.feedings):
                answers = [feeding.answer for feeding in member.feedings]
                self._advance(member, answers if member.several else answers[0])
        self._admit()
        return len(served)

    def _feed(self, portions: Sequence[tuple[_Member, _Feeding, int, int]]) -> dict[_Member, InputError]:
        """Feed one portion each; returns the sessions whose request was wrong."""
        failed: dict[_Member, InputError] = {}
        requests = [_portion(feeding, rows, frames) for _, feeding, rows, frames in portions]
        answers: list[Any] = [None] * len(requests)
        for part in split_passes(
            [(rows, frames, r.sampler is not None) for (*_, rows, frames), r in zip(portions, requests, strict=True)]
        ):
            for number, answer in zip(part, self._serve([requests[i] for i in part]), strict=True):
                answers[number] = answer
        for (member, feeding, rows, frames), answer in zip(portions, answers, strict=True):
            if isinstance(answer, InputError):
                failed[member] = answer
                continue
            feeding.rows, feeding.frames = feeding.rows + rows, feeding.frames + frames
            feeding.answer = answer
        return failed

    def _serve(self, requests: Sequence[StepRequest]) -> list[Any]:
        """The engine's answers; an `InputError` in place of the answer to a request that has one."""
        before = [request.cache.next_position for request in requests]
        try:
            return list(self.engine.serve(requests))
        except UnchosenError as error:
            return error.answers
        except InputError as error:
            if [request.cache.next_position for request in requests] != before:
                return [error for _ in requests]  # it came after the step: nobody knows what was answered
            if len(requests) == 1:
                return [error]
        # One of them is wrong, or has no room. Alone, each other one goes through and the wrong one is known.
        return [answer for request in requests for answer in self._serve([request])]

    def _advance(self, member: _Member, answer: Any) -> None:
        """Send a session its answer, or the error that its request raised, and take its next wish."""
        member.feedings, member.waiting = [], None
        try:
            wish = member.generator.throw(answer) if isinstance(answer, Exception) else member.generator.send(answer)
        except StopIteration as stop:
            member.ticket.result = stop.value
            self._end(member)
        except Exception as error:
            member.ticket.error, member.ticket.traceback = error, traceback.format_exc()
            # A traceback holds the session's variables, and they its pages.
            error.__traceback__ = None
            self._end(member)
        else:
            if isinstance(wish, Waiting):
                member.waiting = wish
                return
            member.several = isinstance(wish, list)
            image = self.engine.image_id
            for request in wish if isinstance(wish, list) else [wish]:
                member.feedings.append(_Feeding(request, [token == image for token in request.tokens]))

    def _end(self, member: _Member) -> None:
        member.ticket.done = True
        self._members.remove(member)
        if self.budget is not None:
            self.budget.give_back(member.ticket.need)

    def _obstacle(self, need: PageBounds) -> tuple[str, bool]:
        """(why a session cannot come in now or '', whether it can later)."""
        if self.budget is not None and (refusal := self.budget.refusal(need)):
            return refusal.reason, refusal.ever
        if len(self._members) >= self.max_sessions:
            return f"{self.max_sessions} sessions run already; try again when one of them has ended", True
        return "", True

    def _let_in(self, ticket: Ticket[T], start: Callable[[], Cooperating[T]]) -> None:
        generator = start()  # before anything is promised: it may fail
        if self.budget is not None:
            self.budget.promise(ticket.need)
        member = _Member(ticket, generator)
        self._members.append(member)
        self._advance(member, None)

    def _admit(self) -> None:
        while self._line and not self._obstacle(self._line[0][0].need)[0]:
            ticket, start = self._line.popleft()
            try:
                self._let_in(ticket, start)
            except InputError as error:
                ticket.error, ticket.done = error, True  # no affair of the others

    def _wake_sleepers(self) -> None:
        for member in list(self._members):
            # A session that is woken may want to sleep on at once: until later, or it would have gone on.
            if member.waiting and (member.waiting.wake.is_set() or self._now() >= member.waiting.until):
                self._advance(member, None)
        self._admit()

    def _rest(self) -> None:
        """Nobody is ready: until the first is."""
        with self._lock:
            if not self._members and self._line:
                reason, _ = self._obstacle(self._line[0][0].need)
                raise AdmissionError(f"nobody is in whose end could make room: {reason}")
            sleepers = [member.waiting for member in self._members if member.waiting]
            if len(sleepers) < len(self._members) or not sleepers:
                return
        assert self.clock is not None
        if not any(waiting.wake.is_set() for waiting in sleepers):
            self.clock.wait_until(min((waiting.until for waiting in sleepers), default=math.inf), self.wake)

    def _now(self) -> float:
        if self.clock is None:
            raise InputError("a session waits for a time, but the pool has no clock; give it one")
        return self.clock.now()


def _portion(feeding: _Feeding, rows: int, frames: int) -> StepRequest:
    """The next rows of a request; only its last portion asks for a token."""
    whole = feeding.request
    if rows == len(whole.tokens):
        return whole
    end, last = feeding.rows + rows, feeding.frames + frames
    done = end == len(whole.tokens)
    return dataclasses.replace(
        whole,
        tokens=whole.tokens[feeding.rows : end],
        frames=None if whole.frames is None or not frames else whole.frames[feeding.frames : last],
        features=None if whole.features is None or not frames else whole.features[feeding.frames : last],
        sampler=whole.sampler if done else None,
    )
