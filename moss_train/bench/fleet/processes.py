"""The processes of a run, found by a mark in their environment wherever in the tree and in whichever session they are."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "MOSS_FLEET_RUN"
_KINDS = ("nccl-", "torch_", "sm_")
"""How files begin that processes leave in /dev/shm when they are killed."""


def marked(mark: str) -> dict[int, dict[str, str]]:
    """Living processes with the mark: id -> environment."""
    found = {}
    for pid in _all_processes():
        environment = _environment(pid)
        if environment.get(MARK) == mark and _alive(pid):
            found[pid] = environment
    return found


def rank_process(mark: str, rank: int, parent: int) -> int | None:
    """The process of a rank; its readers have its environment as well, and other parents."""
    for pid, environment in marked(mark).items():
        if environment.get("RANK") == str(rank) and _parent(pid) == parent:
            return pid
    return None


def end_all(mark: str, seconds: float = 20.0) -> list[int]:
    """SIGKILL to all with the mark until none is left; those that still are after so many seconds."""
    deadline = time.monotonic() + seconds
    while left := list(marked(mark)):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def shared_files(folder: Path = Path("/dev/shm")) -> set[Path]:
    """Files of this user such as killed processes leave."""
    found = set()
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                if path.name.startswith(_KINDS) and path.stat().st_uid == os.getuid():
                    found.add(path)
    return found


def remove_unused(paths: set[Path]) -> list[str]:
    """Remove those that no living process has mapped or open; their names."""
    used = _used(paths)
    removed = []
    for path in sorted(paths - used):
        with suppress(OSError):
            path.unlink()
            removed.append(path.name)
    return removed


def _used(paths: set[Path]) -> set[Path]:
    names = {str(path): path for path in paths}
    found = set()
    for pid in _all_processes():
        with suppress(OSError):
            text = Path(f"/proc/{pid}/maps").read_text(errors="replace")
            found |= {path for name, path in names.items() if name in text}
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if (target := os.readlink(link)) in names:
                        found.add(names[target])
    return found


def _all_processes() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _environment(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (part.partition("=") for part in raw.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs if name}


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def _alive(pid: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX"


def _parent(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[1]) if stat else 0
