"""All events of a stream as JSON lines, readable while it runs and after it broke."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.evaluation.schema import Trace, TraceEvent
from inference.evaluation.storage import load_traces, save_traces
from inference.sinks.growing_file import GrowingFile

_DEFAULTS = [(field.name, field.default) for field in dataclasses.fields(TraceEvent)]


class TraceSink:
    """Writes `FILE.part`: the trace without its events, then one event a line. At the end `FILE` holds the trace in one line.

    Both are read by `load_traces`, and a stream can be replayed from either.

    Args:
        path: FILE.
        trace: what the stream is called and what produces it; without events.
        details: asked at the end for what is then added to `trace.engine`: counts of frames, the reason of the end.
    """

    def __init__(self, path: str | Path, trace: Trace, details: Callable[[], dict[str, Any]] | None = None) -> None:
        self._details = details
        self._file = GrowingFile(path, "--trace")
        self._file.write(json.dumps(dataclasses.asdict(trace), ensure_ascii=False) + "\n")

    def __call__(self, event: TraceEvent) -> None:
        values = {name: value for name, default in _DEFAULTS if (value := getattr(event, name)) != default}
        self._file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def close(self, *, whole: bool) -> None:
        self._file.close(whole=False)
        if whole and self._file.partial.exists():
            (trace,) = load_traces(self._file.partial)
            trace.engine |= self._details() if self._details is not None else {}
            save_traces(self._file.path, [trace])
            self._file.partial.unlink()
