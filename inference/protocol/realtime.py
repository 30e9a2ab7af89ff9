"""`real_time_generate`: a session between three queues."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import Any

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.evaluation.schema import TraceEvent
from inference.protocol.forwarder import Forwarder
from inference.protocol.images import frame_of
from inference.protocol.markers import DONE, ERROR, ROUND_END, ROUND_START
from inference.session.clock import WallClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings


@dataclass
class Fragments:
    """Puts a session's events on the queue of the client.

    Attributes:
        out: `<|round_start|>` where a prompt is taken in, then pieces of text as their characters become complete, and
            `<|silence|>` for every silence.
        mark_round_ends: also `<|round_end|>` where an answer falls silent. Off by default, because the reference's listener
            takes it for the end of all.
    """

    out: queue.Queue[str]
    mark_round_ends: bool = False
    _speaking: bool = False

    def __call__(self, event: TraceEvent) -> None:
        if event.kind == "prompt" and event.reason != "stream_end":
            self._speaking = False
            self.out.put(ROUND_START)
        elif event.kind == "token" and event.text:
            self._speaking = True
            self.out.put(event.text)
        elif event.kind == "silence":
            if self._speaking and self.mark_round_ends:
                self.out.put(ROUND_END)
            self._speaking = False
            self.out.put(event.text)


class RealtimeGenerator:
    """One call of `real_time_generate`.

    Args:
        engine, tokenizer: of a real-time checkpoint.
        settings: limits and manners; its idle time does not count, because the queues stay open.
    """

    def __init__(self, engine: StepEngine, tokenizer: Tokenizer, settings: SessionSettings) -> None:
        self._engine, self._tokenizer, self._settings = engine, tokenizer, settings
        self._clock = WallClock()
        self._inbox = Inbox(live=True)
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def run(self, images: queue.Queue[Any], prompts: queue.Queue[Any], fragments: Fragments) -> str:
        """Generate until stopped or through; then `[DONE]`, or `[ERROR] ...`, is the last message.

        Returns:
            The session's reason of the end.
        """
        size = self._engine.model.config.vision.image_size
        forwarders: list[Forwarder] = []
        try:
            session = RealtimeSession(self._engine, self._tokenizer, self._inbox, self._clock, self._settings, fragments)
            if self._settings.encode_on_arrival:
                self._engine.encoder.warm_up()  # before time begins to count
            self._clock.start()
            forwarders = [
                Forwarder(images, lambda item: self._inbox.push_frame(frame_of(item, size), self._clock.now()), self._fail),
                Forwarder(prompts, lambda item: self._inbox.push_prompt(str(item), self._clock.now()), self._fail),
            ]
            reason = session.run()
            if self._error is not None:
                raise self._error
        except Exception as error:
            fragments.out.put(f"{ERROR} {error or type(error).__name__}")
            raise
        finally:
            self._inbox.end("stopped")  # a forwarder that waits for room gives up
            for forwarder in forwarders:
                forwarder.stop()
        fragments.out.put(DONE)
        return reason

    def stop(self) -> None:
        """End at the next token boundary, from any thread."""
        self._inbox.end("stopped")

    def _fail(self, error: BaseException) -> None:
        """Something in a queue cannot be used: the session ends with it."""
        with self._lock:
            self._error = self._error or error
        self._inbox.end("error")
