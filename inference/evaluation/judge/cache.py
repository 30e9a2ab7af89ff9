"""What a judge has said, kept in a file for ever: nothing is asked, or paid for, twice."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.errors import InputError


def key_of(model: str, messages: Sequence[dict[str, str]], settings: dict[str, Any], attempt: int) -> str:
    """SHA-256 of all that a reply depends on; the address is not part of it.

    Args:
        attempt: 0 for the first time that a thing is asked; a reply without a verdict is asked for again as another attempt.
    """
    content = [model, [{"role": one["role"], "content": one["content"]} for one in messages], settings, attempt]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class ReplyCache:
    """Replies by key, one JSON object a line, written as they come. Threads may share it; processes may read it.

    Args:
        path: the file; None keeps them in memory.

    Raises:
        InputError: it cannot be read, or holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._replies: dict[str, str] = {}
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> str | None:
        """The reply, None where it was never asked."""
        with self._lock:
            return self._replies.get(key)

    def put(self, key: str, model: str, what: str, reply: str) -> None:
        """Keep a reply; `model` and `what` are for people who read the file."""
        line = json.dumps({"key": key, "model": model, "what": what, "reply": reply}) + "\n"
        with self._lock:
            self._replies[key] = reply
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)

    def _read(self, path: Path) -> None:
        try:
            *lines, last = path.read_bytes().split(b"\n")
        except OSError as error:
            raise InputError(f"judge cache {path} cannot be read ({error}); give another file") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    self._enter(line)
                except (ValueError, TypeError, KeyError) as error:
                    raise InputError(f"judge cache {path} line {number} is damaged ({error!r}); remove that line") from error
        if last.strip():  # a run was killed while it wrote it, or somebody's editor left out the end of the line
            try:
                self._enter(last)
                lines.append(last)
            except (ValueError, TypeError, KeyError):
                pass
            path.write_bytes(b"".join(line + b"\n" for line in lines))

    def _enter(self, line: bytes) -> None:
        entry = json.loads(line.decode("utf-8"))
        self._replies[str(entry["key"])] = str(entry["reply"])
