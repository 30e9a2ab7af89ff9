"""Which sample a loader process is busy with, so that the culprit has a name when the process hangs or is killed."""

from __future__ import annotations

import atexit
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_note: tuple[int, int] | None = None
"""(process, descriptor of its note, -1 where no note can be written)"""


@dataclass(frozen=True)
class CurrentSample:
    """The sample that a process had in hand."""

    dataset: str
    shard: str
    key: str
    at: str
    """read | plan | decode"""

    def __str__(self) -> str:
        return f"{self.dataset}/{self.key} in {self.shard} ({self.at})"

    def skip_line(self) -> str:
        """The line that leaves it out when put into the file of `data.skip_samples`."""
        return json.dumps({"kind": "bad", **asdict(self)})


@contextmanager
def busy_with(dataset: str, shard: str, key: str, at: str) -> Iterator[None]:
    """Leave a note while a sample is worked on."""
    descriptor = _descriptor()
    _write(descriptor, json.dumps([dataset, shard, key, at]))
    try:
        yield
    finally:
        _write(descriptor, "")


def current_sample(pid: int) -> CurrentSample | None:
    """What a process of this machine was busy with, also after its end; None if it was between two samples."""
    for path in _folder().glob(f"{_prefix()}*-{pid}"):
        with suppress(OSError, ValueError, TypeError):
            content = path.read_bytes().split(b"\0", 1)[0]
            if content:
                return CurrentSample(*json.loads(content))
    return None


def _descriptor() -> int:
    global _note
    pid = os.getpid()
    if _note is None or _note[0] != pid:  # a forked process begins its own
        _remove_stale()
        path = _folder() / f"{_prefix()}{os.getppid()}-{pid}"
        try:
            _note = (pid, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
        except OSError:
            _note = (pid, -1)
    return _note[1]


def _write(descriptor: int, content: str) -> None:
    if descriptor >= 0:
        with suppress(OSError):  # only a hint for a later message
            os.pwrite(descriptor, content.encode() + b"\0", 0)


def _remove_stale() -> None:
    """Remove the notes that a killed run left: of processes that are gone like those that started them."""
    for path in _folder().glob(f"{_prefix()}*-*"):
        owners = path.name.removeprefix(_prefix()).split("-")
        if not any(os.path.exists(f"/proc/{pid}") for pid in owners):
            with suppress(OSError):
                path.unlink()


def _folder() -> Path:
    return Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"moss-reading-{socket.gethostname()}-"


@atexit.register
def _tidy() -> None:
    """Remove the notes of this process and of those that it started."""
    for pattern in (f"{_prefix()}*-{os.getpid()}", f"{_prefix()}{os.getpid()}-*"):
        for path in _folder().glob(pattern):
            with suppress(OSError):
                path.unlink()
