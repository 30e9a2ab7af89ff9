"""What a person wants, and how it is carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from inference.sinks.statistics import StreamStatistics
from inference.sources.source import Now

HELP = (
    "Type a line and press Enter: it is said at once and ends what is being said.\n"
    "Esc or /stop   stop speaking, without a new prompt\n"
    "/reset         forget everything that was seen and said\n"
    "/stats         counts and rates so far\n"
    "/help          this text\n"
    "/quit, Ctrl-D  end the stream (so does Ctrl-C)\n"
    "A line that begins with // is said with one slash."
)


@dataclass(frozen=True)
class Say:
    """A prompt."""

    text: str


@dataclass(frozen=True)
class Order:
    """Something other than a prompt: stop | reset | stats | help | quit, or an unknown word as it was typed."""

    name: str


Intent = Say | Order


def interpret(line: str) -> Intent | None:
    """What a typed line means; None for an empty one."""
    text = line.strip()
    if not text:
        return None
    if text.startswith("//"):
        return Say(text[1:])
    if text.startswith("/"):
        name = text[1:].split()[0].lower() if text[1:].split() else ""
        return Order({"exit": "quit", "q": "quit", "?": "help", "h": "help"}.get(name, name))
    return Say(text)


class ControlledInbox(Protocol):
    """The part of a session's inbox that a person's wishes reach."""

    def push_prompt(self, text: str, t: float) -> bool: ...

    def push_stop(self, t: float) -> bool: ...

    def push_reset(self, t: float) -> bool: ...

    def end(self, reason: str = "stopped") -> None: ...


class Operator:
    """Carries out intents on a running session, from any thread.

    Args:
        inbox: of the session.
        clock: stamps what is pushed.
        statistics: for `/stats`.
        show: prints a text of several lines to the person.
    """

    def __init__(self, inbox: ControlledInbox, clock: Now, statistics: StreamStatistics, show: Callable[[str], None]) -> None:
        self._inbox, self._clock, self._statistics, self._show = inbox, clock, statistics, show

    def act(self, intent: Intent | None) -> None:
        """Do it; an unknown order is answered with the help that there is."""
        now = self._clock.now()
        match intent:
            case None:
                return
            case Say(text):
                self._inbox.push_prompt(text, now)
            case Order("stop"):
                self._inbox.push_stop(now)
            case Order("reset"):
                self._inbox.push_reset(now)
            case Order("quit"):
                self._inbox.end("quit")
            case Order("stats"):
                self._show(self._statistics.summary(now))
            case Order("help"):
                self._show(HELP)
            case Order(name):
                self._show(f"/{name} is no order; /help lists them, and //{name} says it")
