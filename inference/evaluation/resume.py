"""What an evaluation has finished, kept group by group, so that the same command goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.storage import scenario_as_dict, trace_as_dict, trace_from_dict, write_lines
from model.errors import InputError

PARTIAL = "traces.partial.jsonl"


_CERTIFICATE = "certificate.json"
"""Beside weights that were converted; it holds a digest of each of them."""


def run_key(scenarios: Sequence[Scenario], folder: Path, settings: dict[str, Any]) -> str:
    """SHA-256 over all that decides the traces.

    Args:
        folder: what the scenarios' paths are relative to.
        settings: beside scenarios and videos.
    """
    media = sorted({folder / name for scenario in scenarios for name in scenario.frames or [scenario.video]})
    content = [settings, [scenario_as_dict(scenario) for scenario in scenarios], [_as_it_lies(path) for path in media]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def checkpoint_identity(checkpoint: Path) -> list[Any]:
    """A checkpoint's files, by what tells that they changed. Weights that are converted once more stay the same."""
    certified = (checkpoint / _CERTIFICATE).is_file()
    files = sorted(path for path in checkpoint.glob("*") if path.is_file())
    found: list[Any] = [str(checkpoint)]
    for path in files:
        if path.suffix != ".safetensors":
            found.append([path.name, _digest(path)])
        else:
            found.append([path.name, path.stat().st_size] if certified else _as_it_lies(path))
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_it_lies(path: Path) -> list[Any]:
    stat = path.stat()
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]


class PartialTraces:
    """Traces of whole groups in a file of their own, until the evaluation is over.

    Args:
        folder: of the evaluation.
        key: of `run_key`; what another key left behind is not used.

    Attributes:
        groups: traces by scenario, of each finished group in order.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path, self._key = folder / PARTIAL, key
        self.groups: list[list[list[Trace]]] = self._read()

    def add(self, group: list[list[Trace]]) -> None:
        """Keep one more finished group."""
        fresh = not self.groups
        self.groups.append(group)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w" if fresh else "a", encoding="utf-8") as file:
            if fresh:
                file.write(json.dumps({"key": self._key}) + "\n")
            file.write(json.dumps([[trace_as_dict(trace) for trace in traces] for traces in group], ensure_ascii=False) + "\n")

    def finish(self) -> None:
        """The evaluation's own files are written: nothing is left to be gone on with."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> list[list[list[Trace]]]:
        try:
            lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]  # a cut line has no end
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self._path} cannot be read ({error}); remove it to begin anew") from error
        try:
            if not lines or json.loads(lines[0]) != {"key": self._key}:
                return []
            found = [[[trace_from_dict(row) for row in rows] for rows in json.loads(line)] for line in lines[1:]]
        except (ValueError, TypeError, InputError) as error:
            raise InputError(f"{self._path} is damaged ({error}); remove it to begin anew") from error
        write_lines(self._path, lines)  # what stands behind a cut line would be lost to the next reader
        return found
