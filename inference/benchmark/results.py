"""The one file of all that was measured: parts join it run by run, and a summary of ten numbers stands on top."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from model.errors import InputError

FORMAT = "moss-inference-benchmark/1"
_SAME = ("model", "workload", "dtype", "seed", "graphs")
"""What all parts of one file have in common."""


_NUMBERS = re.compile(r"\[\s+((?:-?[\d.]+(?:e[-+]?\d+)?,?\s+)+)\]")
"""A list of nothing but numbers, which is written on one line."""


def _rounded(value: Any) -> Any:
    """Single measurements to a tenth of a microsecond: there are tens of thousands of them."""
    if isinstance(value, float):
        return round(value, 7)
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def _at(content: Mapping[str, Any], *path: str, factor: float = 1.0) -> float | None:
    """A number of a part, None where it was not measured."""
    found: Any = content["parts"]
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return float(found) * factor


SUMMARY: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "ttft_exact_s": lambda c: _at(c, "first-token", "ttft_s"),
    "ttft_fast_s": lambda c: _at(c, "first-token-fast", "ttft_s"),
    "ttft_stream_p95_ms": lambda c: _at(c, "stream", "frame_p95_s", factor=1e3),
    "prompt_to_token_p95_ms": lambda c: _at(c, "stream", "prompt_p95_s", factor=1e3),
    "decode_tps_bf16": lambda c: _at(c, "decode", "tokens_per_second"),
    "decode_tps_fp8": lambda c: _at(c, "decode-fp8", "tokens_per_second"),
    "e2e_256_s": lambda c: _at(c, "end-to-end", "seconds"),
    "peak_gib": lambda c: _at(c, "end-to-end", "memory_gib", "peak"),
    "sessions16_tps": lambda c: _at(c, "sessions", "tokens_per_second", "slowest"),
    "sessions16_frame_p95_ms": lambda c: _at(c, "sessions", "statistics", "frame_latency_s", "p95", factor=1e3),
}
"""Where each number of the summary comes from."""


def summarise(content: Mapping[str, Any]) -> dict[str, float | None]:
    """The ten numbers; None for what was not measured."""
    return {name: find(content) for name, find in SUMMARY.items()}


class Results:
    """What a file holds, and will hold.

    Args:
        path: the file; None keeps everything in memory.
        setup: model, workload, dtype and seed of this run.

    Raises:
        InputError: the file is there and holds something else, or parts of another model or other sizes.
    """

    def __init__(self, path: Path | None, setup: Mapping[str, Any]) -> None:
        self._path = path
        self.content: dict[str, Any] = {"format": FORMAT, **setup, "parts": {}, "not_measured": {}}
        if path is not None and path.exists():
            self.content = read(path)
            for name in _SAME:
                if self.content[name] != json.loads(json.dumps(setup[name])):
                    raise InputError(
                        f"{path} holds parts with {name} {_short(self.content[name])}, this run has {_short(setup[name])}; "
                        "give another file to --out"
                    )

    def add(self, part: str, found: Mapping[str, Any]) -> None:
        """Enter a part in place of an earlier measurement of it, and write the file."""
        self.content["parts"][part] = {name: _rounded(value) if name == "runs" else value for name, value in found.items()}
        self.content["not_measured"].pop(part, None)
        self._write()

    def miss(self, part: str, reason: str) -> None:
        """A part could not be measured here; an earlier measurement of it stays."""
        if part not in self.content["parts"]:
            self.content["not_measured"][part] = reason
        self._write()

    def _write(self) -> None:
        self.content["summary"] = summarise(self.content)
        if self._path is None:
            return
        partial = self._path.with_name(self._path.name + ".part")
        text = _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", json.dumps(self.content, indent=1))
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, self._path)


def read(path: Path) -> dict[str, Any]:
    """The content of a file.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}); give a file that `moss bench inference --out` wrote"
        ) from error
    problem = find_problem(content)
    if problem:
        raise InputError(f"{path}: {problem}; give a file that `moss bench inference --out` wrote")
    found: dict[str, Any] = content
    return found


def find_problem(content: Any) -> str:
    """What keeps this from being the content of such a file; '' where nothing does."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return f"it does not say format {FORMAT!r}"
    kinds: dict[str, type | tuple[type, ...]] = {"model": str, "dtype": str, "seed": int, "workload": dict}
    kinds |= {"graphs": bool, "parts": dict, "not_measured": dict, "summary": dict}
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            return f"{name} is missing or of the wrong kind"
    for name, part in content["parts"].items():
        for key in ("surroundings", "seconds_taken", "correctness"):
            if not isinstance(part, dict) or key not in part:
                return f"part {name} has no {key}"
    if set(content["summary"]) != set(SUMMARY):
        return f"summary has {sorted(content['summary'])}, not {sorted(SUMMARY)}"
    if content["summary"] != summarise(content):
        return "summary says something else than the parts"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:57] + "..."
