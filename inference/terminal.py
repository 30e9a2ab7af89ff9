"""Printing a stream as it happens, and prompts typed while it runs."""

from __future__ import annotations

import threading
from typing import TextIO

from inference.arrivals import Inbox
from inference.clock import Clock
from inference.evaluation.schema import TraceEvent


class StreamPrinter:
    """Writes events to a terminal: one line per utterance with the second at which it began, one per run of silence."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._state = ""
        """What the open line holds: '' (nothing is open), `speech` or `silence`."""

    def __call__(self, event: TraceEvent) -> None:
        if event.kind == "token" and event.text:
            self._open("speech", event.t)
            self._out.write(event.text)
        elif event.kind == "silence":
            self._open("silence", event.t, event.text or "<|silence|>")
        elif event.kind == "prompt":
            self._line(event.t, f"user: {event.text}")
        elif event.kind == "turn_interrupted":
            self._line(event.t, "(interrupted)")
        elif event.kind in ("frame_dropped", "frame_rejected"):
            what = "dropped" if event.kind == "frame_dropped" else "rejected"
            self._line(event.t, f"(frame {event.frame} {what}: {event.reason})")
        elif event.kind == "end":
            self._line(event.t, f"(end: {event.reason})")
        self._out.flush()

    def _open(self, state: str, t: float, text: str = "") -> None:
        if self._state == state:
            return
        self.close()
        self._out.write(f"[{t:8.2f} s] {text}")
        self._state = state

    def _line(self, t: float, text: str) -> None:
        self.close()
        self._out.write(f"[{t:8.2f} s] {text}\n")

    def close(self) -> None:
        """End the open line, so that what is printed next begins on a line of its own."""
        if self._state:
            self._out.write("\n")
            self._out.flush()
        self._state = ""


def listen(lines: TextIO, inbox: Inbox, clock: Clock) -> threading.Thread:
    """Push every line typed as a prompt, until the input ends; returns the running thread."""

    def read() -> None:
        for line in lines:
            if line.strip():
                inbox.push_prompt(line.strip(), clock.now())
        inbox.close()

    thread = threading.Thread(target=read, name="typed prompts", daemon=True)
    thread.start()
    return thread
