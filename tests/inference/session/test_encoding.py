"""Frames that are encoded when they arrive: the same tokens, published at a token boundary, never waited for while speaking."""

from __future__ import annotations

from typing import Any

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.model.video_mllama import VideoMllama
from inference.session.arrivals import Arrival, merge
from inference.session.settings import SessionSettings
from inference.vision.encoder import FrameEncoder
from inference.vision.ticket import FrameTicket
from tests.inference.session.streams import RecordingEngine, frames, run, said


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
    assert said(at_once) == said(plain) and at_once.ledger == plain.ledger


def test_speech_goes_on_while_a_frame_is_encoded_and_silence_takes_it_at_once(
    engine: RecordingEngine, tokenizer: Tokenizer
) -> None:
    early = SessionSettings(tokens_per_second=8.0, encode_on_arrival=True)
    late = run(_late(engine.model, 2), tokenizer, ARRIVALS, until=4.0, settings=early)
    assert late.ledger.processed == 5 and late.ledger.balanced
    waited = 0
    speaking = False
    arrived = {e.frame: e.t for e in late.events if e.kind == "frame_in"}
    for event in late.events:
        if event.kind == "frame_done":
            delay = event.t - arrived[event.frame]
            assert delay <= 3 / 8 + 1e-9, "two boundaries later than without an encoder, at most"
            waited += speaking and delay > 1 / 8
        elif event.token is not None:
            speaking = event.kind == "token"
    assert waited, "the model of this test must be speaking when a frame comes"
