"""The running stream on a terminal: what was said scrolls above; below stand the present, the counts and the line being typed."""

from __future__ import annotations

import threading

import torch
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.segment import Segments
from rich.text import Text

from inference.console.half_blocks import COLUMNS, half_blocks
from inference.console.line_editor import LineEditor
from inference.evaluation.schema import TraceEvent
from inference.sinks.statistics import StreamStatistics
from inference.sinks.terminal import clock_of, line_of, printable
from inference.sources.source import Now

REFRESH_PER_SECOND = 8
MOST_SHOWN = 400
"""Characters of the present utterance in the view."""
LINES_BELOW = 8
"""Of the terminal, kept for text; a frame is drawn where there are enough besides."""
MOST_HELD = 4000
"""Characters after which a speech without an end goes above, piece by piece."""
_STYLES = {"prompt": "bold cyan", "turn_interrupted": "yellow", "stop": "yellow", "frame_dropped": "red", "frame_rejected": "red"}


class LiveView:
    """An event sink that draws.

    Args:
        console: rich's, of a terminal.
        clock: the stream's, for rates.
        statistics: fed by the view.
        show_frames: draw the newest frame.

    Attributes:
        editor: the line that is being typed, or None where nobody types.
    """

    def __init__(self, console: Console, clock: Now, statistics: StreamStatistics, *, show_frames: bool = False) -> None:
        self.editor: LineEditor | None = None
        self._console, self._clock, self._statistics = console, clock, statistics
        self._show_frames = show_frames
        self._frame: torch.Tensor | None = None
        self._drawn: tuple[torch.Tensor, Segments] | None = None
        self._said = ""
        self._since = 0.0
        self._lock = threading.Lock()
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=REFRESH_PER_SECOND, transient=True, auto_refresh=True
        )

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def tap(self, frame: torch.Tensor) -> None:
        """The newest frame uint8 [3, S, S], from any thread."""
        if self._show_frames:
            self._frame = frame

    def show(self, text: str) -> None:
        """Lines of their own above, from any thread."""
        self._print(Text(text, style="green"))

    def refresh(self) -> None:
        """Draw now, because something was typed."""
        self._live.refresh()

    def __call__(self, event: TraceEvent) -> None:
        with self._lock:
            lines = self._take(event)
        self._print(*lines)

    def close(self, *, whole: bool) -> None:
        with self._lock:
            lines = self._finish_utterance()
        self._print(*lines)
        self._live.stop()

    def _take(self, event: TraceEvent) -> list[Text]:
        """Count an event; returns what goes above. Nothing is printed here: rich asks for the view under a lock of its own."""
        silent_run = self._statistics.silent_run
        self._statistics.feed(event)
        if event.kind == "token":
            begins = bool(event.text) and not self._said
            self._since = event.t if begins else self._since
            self._said += printable(event.text)
            if len(self._said) > MOST_HELD:
                return self._finish_utterance()
            return [Text(f"{clock_of(event.t)} <|silence|> x{silent_run}", style="dim")] if begins and silent_run else []
        if event.kind in ("frame_in", "frame_done", "frame_during_speech"):
            return []
        told = line_of(event)
        lines = [] if event.kind in ("frame_dropped", "frame_rejected") else self._finish_utterance()
        return [*lines, Text(told, style=_STYLES.get(event.kind, "dim"))] if told else lines

    def _finish_utterance(self) -> list[Text]:
        said, self._said = self._said, ""
        return [Text(f"{clock_of(self._since)} {said}")] if said else []

    def _print(self, *lines: Text) -> None:
        for line in lines:
            self._console.print(line, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = self._picture()  # outside of the lock: the session's thread takes it for every event
        with self._lock:
            if self._said:
                parts.append(Text(f"{clock_of(self._since)} {_newest(self._said)}▌"))
            elif self._statistics.silent_run:
                parts.append(Text(f"{' ' * 12} <|silence|> x{self._statistics.silent_run}", style="dim"))
            parts.append(Text(self._statistics.summary(self._clock.now()), style="reverse", overflow="crop", no_wrap=False))
            if self.editor is not None:
                parts.append(_typed(self.editor))
            return Group(*parts)

    def _picture(self) -> list[RenderableType]:
        """The newest frame, drawn once."""
        frame, drawn = self._frame, self._drawn
        if frame is None or self._console.size.height < COLUMNS // 2 + LINES_BELOW:
            return []
        if drawn is None or drawn[0] is not frame:
            drawn = self._drawn = frame, half_blocks(frame)
        return [drawn[1]]


def _newest(said: str) -> str:
    """The end of a long utterance, on few lines; all of it goes above once it is over."""
    flat = " ".join(said.split())
    return flat if len(flat) <= MOST_SHOWN else "…" + flat[-MOST_SHOWN:]


def _typed(editor: LineEditor) -> Text:
    text, cursor = editor.text, editor.cursor
    line = Text("> " + text[:cursor], style="bold")
    line.append(text[cursor : cursor + 1] or " ", style="reverse")
    line.append(text[cursor + 1 :])
    if not text:
        line.append("  Enter says it, Esc stops, /help", style="dim")
    return line
