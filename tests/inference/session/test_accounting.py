"""A running session under random pushes, steps and changes: the accounting holds at every instant, with a real model."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepRequest
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession, Waiting
from inference.session.queue_policies import QUEUE_POLICIES, make_policy
from inference.session.settings import SessionSettings
from tests.inference.session.streams import FRAMES, RecordingEngine

PROMPTS = ("left", "what is it ?")


class HandClock:
    """Real time that only the test moves."""

    def __init__(self) -> None:
        self.t = 0.0

    def now(self) -> float:
        return self.t

    def wait_until(self, t: float, wake: Any) -> None:
        raise AssertionError("a cooperative session says that it waits")

    def wall(self) -> float | None:
        return self.t


def _machine(engine: RecordingEngine, tokenizer: Tokenizer) -> type[RuleBasedStateMachine]:
    class SessionAccounting(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            engine.steps = []
            self.clock, self.inbox = HandClock(), Inbox(live=True)
            manners = SessionSettings(max_pending_frames=3, max_frames_per_step=2, max_frames=12, max_new_tokens=60)
            self.session = RealtimeSession(engine, tokenizer, self.inbox, self.clock, manners)
            self.stepping = self.session.cooperating()
            self.request: StepRequest | Waiting | None = next(self.stepping)
            self.prompts: list[str] = []

        @rule(dt=st.sampled_from([0.0, 0.3, -0.1]), number=st.integers(0, 23), good=st.booleans())
        def push_frame(self, dt: float, number: int, good: bool) -> None:
            self.clock.t += max(dt, 0.0)
            pixels = FRAMES[number] if good else torch.zeros(3, 5, 5, dtype=torch.uint8)
            self.inbox.push_frame(pixels, self.clock.t + min(dt, 0.0), timeout=0.0)

        @rule(text=st.sampled_from(PROMPTS))
        def push_prompt(self, text: str) -> None:
            if self.inbox.push_prompt(text, self.clock.t):
                self.prompts.append(text)

        @rule(reset=st.booleans())
        def push_control(self, reset: bool) -> None:
            _ = self.inbox.push_reset(self.clock.t) if reset else self.inbox.push_stop(self.clock.t)

        @rule(name=st.sampled_from(QUEUE_POLICIES), limit=st.integers(1, 4))
        def change_policy(self, name: str, limit: int) -> None:
            self.inbox.use_policy(make_policy(name), limit)

        @precondition(lambda self: self.request is not None)
        @rule(times=st.integers(1, 3))
        def step(self, times: int) -> None:
            for _ in range(times):
                if isinstance(self.request, StepRequest):
                    answer = engine.serve([self.request])[0]
                elif self.request is not None and self.request.wake.is_set():
                    answer = None
                else:
                    return
                self.balanced()  # the step is computed, its frames are not settled yet
                try:
                    self.request = self.stepping.send(answer)
                except StopIteration:
                    self.request = None

        @rule()
        def close(self) -> None:
            self.inbox.close()

        @invariant()
        def balanced(self) -> None:
            ledger, queue = self.session.ledger, self.inbox.queue
            assert ledger.balanced and ledger.pending == len(queue.waiting) + len(queue.in_flight)
            assert self.request is not None or ledger.pending == 0
            own = [*self.session.progress.frames, *self.session.progress.carried.frames]
            assert self.request is None or {id(frame) for frame in own} == {id(frame) for frame in queue.in_flight}

        def teardown(self) -> None:
            self.inbox.end()
            while self.request is not None:
                self.clock.t += 1.0
                answer = engine.serve([self.request])[0] if isinstance(self.request, StepRequest) else None
                try:
                    self.request = self.stepping.send(answer)
                except StopIteration:
                    self.request = None
            events = self.session.events
            assert [e.text for e in events if e.kind == "prompt"] == self.prompts, "prompts are never dropped"
            fates = ("frame_done", "frame_dropped", "frame_rejected")
            ended = sorted(e.frame for e in events if e.kind in fates and e.frame is not None)
            assert ended == sorted(e.frame for e in events if e.kind == "frame_in" and e.frame is not None)
            assert ended == list(range(self.session.ledger.submitted)) and events[-1].kind == "end"
            assert engine.store.used_bytes == 0, "the pages of an ended session are free"

    return SessionAccounting


def test_accounting_holds_at_every_instant(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    machine = _machine(engine, tokenizer)
    run_state_machine_as_test(machine, settings=settings(max_examples=8, stateful_step_count=25, deadline=None))
    assert engine.store.used_bytes == 0
