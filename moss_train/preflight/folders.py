"""Folders of a run: written, kept by the disk, with room, and, for the run folder, one and the same on all nodes."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from moss_train.preflight.findings import BAD, OK, WARNING, Finding, Verdict

GIB = 2**30
SLOW_SECONDS = 5.0
"""For a small file to be on the disk."""
_SHARE = "put run_dir on a file system that all nodes mount under the same path"


def check_folder(folder: Path, min_gib: float, what: str) -> list[Finding]:
    """Make the folder where it is missing, write a small file, have it on the disk, read it back.

    Args:
        min_gib: least free space.
        what: name of the folder in sentences.
    """
    file = folder / f".preflight.{uuid.uuid4().hex}"  # nodes may share process numbers and the folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        with file.open("wb") as stream:
            stream.write(b"moss" * 1024)
            stream.flush()
            os.fsync(stream.fileno())
        seconds = time.monotonic() - begin
        same = file.read_bytes() == b"moss" * 1024
        file.unlink()
        free = shutil.disk_usage(folder).free / GIB
    except OSError as error:
        why = f"{what} {folder} cannot be written: {error.strerror or error}; mount it, make room, or correct its permissions"
        return [Finding("folders", BAD, error.strerror or "cannot be written", why)]
    if not same:
        return [
            Finding(
                "folders",
                BAD,
                "read is not written",
                f"{what} {folder} gives back other bytes than were written; its disk is broken",
            )
        ]
    if free < min_gib:
        why = (
            f"{what} {folder} has {free:.1f} GiB free, less than launcher.preflight.min_disk_gib, which is {min_gib:g}; make room"
        )
        return [Finding("folders", BAD, f"{free:.1f} GiB free", why)]
    if seconds > SLOW_SECONDS:
        why = f"{what} {folder} took {seconds:.1f} s to have a small file on the disk; checkpoints will be slow: use a faster one"
        return [Finding("folders", WARNING, f"fsync {seconds:.1f} s", why)]
    return [Finding("folders", OK, f"{free:.1f} GiB free")]


class SharedToken:
    """Small files by which nodes see whether the folder of the report is the same for all.

    Args:
        folder: that of the report.
        token: of this check: names that no other has.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder, self._token = folder, token

    def write(self, node: int) -> bool:
        """Leave this node's file; False where it cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path(node).write_text(self._token, encoding="utf-8")
        except OSError:
            return False
        return True

    def see(self, node: int, seconds: float) -> bool:
        """Whether the other node's file is there by then: a network file system may show it late."""
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError):
                if self._path(node).read_text(encoding="utf-8") == self._token:
                    return True
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
            with suppress(OSError):
                os.listdir(self._folder)  # has some file systems look again

    def clear(self, node: int) -> None:
        """Take this node's file away."""
        with suppress(OSError):
            self._path(node).unlink(missing_ok=True)

    def _path(self, node: int) -> Path:
        return self._folder / f".shared.{self._token}.{node}"


def mount_of(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """What the folder lies on, such as `nfs4 storage:/runs`; "?" where the kernel does not tell."""
    best, shown = -1, "?"
    try:
        real = os.path.realpath(folder)
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            point = left.split()[4].replace("\\040", " ")
            if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= best:
                kind, source = right.split()[:2]
                best, shown = len(point), f"{kind} {source}"
    except (OSError, IndexError, ValueError):
        return "?"
    return shown


def judge_sharing(
    verdict: Verdict, folder: Path, sees: Mapping[int, bool], seen: Mapping[int, bool], mounts: Mapping[int, str]
) -> None:
    """Whether all nodes that can write the folder have the same one.

    Args:
        sees: by node (the first left out), whether it saw the first node's file.
        seen: likewise, whether the first node saw its file.
        mounts: by node, what the folder lies on there.
    """
    apart = [node for node in sees if not (sees[node] and seen[node])]
    if not apart:
        return
    values = dict.fromkeys([*sees, 0], "not shared")
    if len(apart) == len(sees) and _first_is_apart(sees, mounts):
        why = f"its folder {folder} (on {mounts[0]}) is not that of the others (on {mounts[apart[0]]}); {_SHARE}"
        verdict.add(0, Finding("folders", BAD, values[0], why))
        return
    whys = {node: _why(verdict.names, folder, node, sees[node], mounts) for node in apart}
    verdict.blame(apart, [0, *sees], "folders", values, whys)


def _first_is_apart(sees: Mapping[int, bool], mounts: Mapping[int, str]) -> bool:
    others = {mounts[node] for node in sees}
    return len(sees) > 1 and len(others) == 1 and others != {mounts[0]}


def _why(names: Sequence[str], folder: Path, node: int, sees: bool, mounts: Mapping[int, str]) -> str:
    where = (
        f"the folder lies on {mounts[node]} here, on {mounts[0]} there" if mounts[node] != mounts[0] else "it is another folder"
    )
    if sees:
        return f"files that it writes into {folder} do not appear on node {names[0]} ({where}); {_SHARE}"
    return f"does not see in {folder} what node {names[0]} wrote there ({where}); {_SHARE}"
