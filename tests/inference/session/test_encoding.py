"""Frames that are encoded when they arrive: the same tokens, published at a token boundary, never waited for while speaking."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.evaluation.schema import Trace
from inference.model.load import load_model
from inference.model.video_mllama import VideoMllama
from inference.session.arrivals import Arrival, merge
from inference.session.clock import WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.replay import replay_trace
from inference.session.settings import SessionSettings
from inference.vision.encoder import FrameEncoder
from inference.vision.ticket import FrameTicket
from tests.inference.checkpoints import random_tensors, tiny_config, write_checkpoint
from tests.inference.session.streams import FRAMES, BusyWallClock, RecordingEngine, frames, run, said


class LateTicket:
    """A ticket whose frame takes so many token boundaries, as a device's may."""

    def __init__(self, ticket: FrameTicket, boundaries: int) -> None:
        self._ticket, self._left = ticket, boundaries

    @property
    def ready(self) -> bool:
        self._left -= 1
        return self._left < 0 and self._ticket.ready

    def features(self) -> torch.Tensor:
        return self._ticket.features()

    def cancel(self) -> None:
        self._ticket.cancel()


class LateEncoder:
    """The real encoder, whose tickets are late."""

    def __init__(self, encoder: FrameEncoder, boundaries: int) -> None:
        self._encoder, self._boundaries = encoder, boundaries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def submit(self, frame: torch.Tensor, **options: Any) -> LateTicket:
        return LateTicket(self._encoder.submit(frame, **options), self._boundaries)


class LateEngine(RecordingEngine):
    boundaries = 0

    @property
    def encoder(self) -> Any:
        return LateEncoder(super().encoder, self.boundaries)


def _late(model: VideoMllama, boundaries: int) -> LateEngine:
    engine = LateEngine(model)
    engine.boundaries = boundaries
    return engine


ARRIVALS = list(merge([Arrival(t=0.3, prompt="left")], frames(5, 2.0)))


def test_encoded_on_arrival_says_the_same(engine: RecordingEngine, tokenizer: Tokenizer) -> None:
    plain = run(engine, tokenizer, ARRIVALS, until=4.0, settings=SessionSettings(tokens_per_second=8.0))
    early = SessionSettings(tokens_per_second=8.0, encode_on_arrival=True)
    at_once = run(engine, tokenizer, ARRIVALS, until=4.0, settings=early)
    late = run(_late(engine.model, 3), tokenizer, ARRIVALS, until=4.0, settings=early)  # on a virtual clock nothing is late
    assert said(late) == said(at_once) == said(plain) and at_once.ledger == plain.ledger


def test_speech_goes_on_while_a_frame_is_encoded_and_silence_takes_it_at_once(
    engine: RecordingEngine, tokenizer: Tokenizer
) -> None:
    early = SessionSettings(tokens_per_second=8.0, encode_on_arrival=True)
    late = _late(engine.model, 2)
    late.steps = []
    session = RealtimeSession(late, tokenizer, Inbox(ARRIVALS), BusyWallClock([0.0]), early)
    session.run(until=4.0)
    assert session.ledger.processed == 5 and session.ledger.balanced
    waited = 0
    speaking = False
    arrived = {e.frame: e.t for e in session.events if e.kind == "frame_in"}
    for event in session.events:
        if event.kind == "frame_done":
            delay = event.t - arrived[event.frame]
            assert delay <= 3 / 8 + 1e-9, "two boundaries later than without an encoder, at most"
            waited += speaking and delay > 1 / 8
        elif event.token is not None:
            speaking = event.kind == "token"
    assert waited, "the model of this test must be speaking when a frame comes"


@pytest.mark.gpu
def test_a_stream_on_a_gpu_is_accounted_for_and_replays(engine: RecordingEngine, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Frames pushed by a thread are encoded on their own stream while the session speaks; its record replays to the token."""
    tensors = random_tensors(tiny_config(tokenizer.vocab_size), seed=11)
    folder = write_checkpoint(tmp_path / "c", tiny_config(tokenizer.vocab_size), tokenizer=tokenizer, tensors=tensors)
    cuda = StepEngine(load_model(folder, "cuda", torch.float32))
    clock, inbox = WallClock(), Inbox(live=True)
    settings = SessionSettings(encode_on_arrival=True, idle_timeout=0.0, max_new_tokens=2000)
    session = RealtimeSession(cuda, tokenizer, inbox, clock, settings)

    def push() -> None:
        for i in range(48):
            inbox.push_frame(FRAMES[i % 24], clock.now())
            if i % 12 == 5:
                inbox.push_prompt("left", clock.now())
            threading.Event().wait(0.02)
        inbox.close()

    thread = threading.Thread(target=push)
    thread.start()
    session.run()
    thread.join()
    assert session.ledger.balanced and session.ledger.pending == 0
    assert session.ledger.processed == 48 or session.end_reason == "max_new_tokens"
    details = {"clock": "wall", "session": session.describe()}
    trace = Trace(scenario_id="gpu", mode="push", events=session.events, engine=details)
    report = replay_trace(trace, {i: FRAMES[i % 24] for i in range(48)}, cuda, tokenizer)
    assert report.matches, report.difference.describe() if report.difference else ""
