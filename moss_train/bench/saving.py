"""What a checkpointer asks of a session, around the subject of a measurement; and what a folder and this host have room for."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from model.config import VideoMllamaConfig
from moss_train.bench.subject import Subject
from moss_train.checkpoint.checkpointer import Checkpointer
from moss_train.checkpoint.description import CheckpointDescription, newest_checkpoint
from moss_train.config.checkpoint import CheckpointConfig
from moss_train.config.schema import RunConfig
from moss_train.engines.optimizer.bytes import optimizer_bytes
from moss_train.planning.parameters import model_parameters

CGROUP = Path("/sys/fs/cgroup")
_IN_MEMORY = ("tmpfs", "ramfs")
_LOOK_SECONDS = 0.02


class _NoData:
    """The place in the data of a run that reads none."""

    def state_dict(self) -> None:
        return None


@dataclasses.dataclass
class _Folder:
    path: Path

    @property
    def newest(self) -> Path | None:
        return newest_checkpoint(self.path)


@dataclasses.dataclass
class _Settings:
    checkpoint: CheckpointConfig


class Saver:
    """A subject's checkpoints.

    Args:
        subject: with an optimizer.
        folder: of the run.
        asynchronous: write in the background, from a copy in host memory; else from where the state lives, while all waits.
    """

    def __init__(self, subject: Subject, folder: Path, asynchronous: bool) -> None:
        self._model, self._stage = subject.model_config, subject.config.stage.name
        self.layout, self.models, self.optimization = subject.layout, subject.models, subject.optimization
        self.folder, self.feed, self.resumed = _Folder(folder), _NoData(), None
        self.config = _Settings(CheckpointConfig(asynchronous=asynchronous, keep_last=1, end_retry_seconds=0.0))
        self.checkpointer = Checkpointer(cast(Any, self))

    def describe(self, step: int) -> CheckpointDescription:
        """What a checkpoint says about itself."""
        return CheckpointDescription(step=step, model=dataclasses.asdict(self._model), stage={"name": self._stage})


def checkpoint_bytes(config: RunConfig) -> int:
    """Bytes of a checkpoint: weights and the optimizer's states."""
    have = model_parameters(VideoMllamaConfig.from_dict(config.model))
    text, tower = (optimizer_bytes(config.optimizer, config.precision, vision=part) for part in (False, True))
    return int(have.decoder * (text.weight + text.shared) + have.vision * (tower.weight + tower.shared))


def clear(folder: Path) -> None:
    """Remove what a measurement has written."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / "latest").unlink(missing_ok=True)


def room(folder: Path) -> int:
    """Bytes that a folder takes; of one that lies in memory no more than the host has left.

    Args:
        folder: is there.
    """
    free = shutil.disk_usage(folder).free
    return min(free, memory_left()) if _lies_in_memory(folder) else free


def memory_left() -> int:
    """Bytes of memory that this host, or the group of processes that this one is limited with, still has."""
    left = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                left = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int((CGROUP / "memory.max").read_text())
        left = min(left, limit - int((CGROUP / "memory.current").read_text()))
    return max(left, 0)


def _lies_in_memory(folder: Path) -> bool:
    whole = folder.resolve()
    found: tuple[int, bool] = (-1, False)  # length of the longest mount point above, whether it lies in memory
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            point, kind = line.split()[1:3]
            if whole.is_relative_to(point):
                found = max(found, (len(point), kind in _IN_MEMORY))
    return found[1]


class HostPeak:
    """The most memory of this process in `with`, looked at fifty times a second; files in memory are not counted."""

    def __init__(self) -> None:
        self.before = self.peak = resident()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="host memory", daemon=True)

    @property
    def added(self) -> int:
        """Bytes above the begin."""
        return self.peak - self.before

    def __enter__(self) -> HostPeak:
        self.before = self.peak = resident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.peak = max(self.peak, resident())

    def _look(self) -> None:
        while not self._end.is_set():
            self.peak = max(self.peak, resident())
            time.sleep(_LOOK_SECONDS)


def resident() -> int:
    """Bytes of this process in memory, what it shares with others left out."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")
