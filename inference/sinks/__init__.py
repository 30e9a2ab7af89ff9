"""Where the events of a stream go: terminal, live view, trace, subtitles; several at once."""

from __future__ import annotations

from inference.sinks.sink import EventSink, Sinks
from inference.sinks.subtitles import SubtitleSink
from inference.sinks.terminal import TerminalSink
from inference.sinks.trace import TraceSink

__all__ = ["EventSink", "Sinks", "SubtitleSink", "TerminalSink", "TraceSink"]
