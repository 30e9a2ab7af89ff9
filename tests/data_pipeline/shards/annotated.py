"""Annotation files with real media, and a process that is killed at a chosen operation on files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline.shards.annotations import Annotation, write_annotations
from tests.data_pipeline.helpers import image_sample, realtime_sample, text_sample, video_sample

MAKERS = (video_sample, image_sample, text_sample, realtime_sample)
_FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}


def annotate(root: Path, count: int, makers: tuple[Callable[[int], Any], ...] = MAKERS, **fields: str) -> Path:
    """`root/a.jsonl` of `count` samples, with their media beside it."""
    root.mkdir(parents=True, exist_ok=True)
    annotations = []
    for index in range(count):
        key, sample, members = makers[index % len(makers)](index)
        for name, value in fields.items():
            setattr(sample, name, value)
        files = {name: root / f"{key}.{name}" for name in members}
        for name, path in files.items():
            path.write_bytes(members[name])
        annotations.append(Annotation(key, sample, files))
    write_annotations(root / "a.jsonl", annotations)
    return root / "a.jsonl"


def tars(folder: Path) -> dict[str, bytes]:
    """Name and bytes of every tar, and the files that say which they are."""
    names = [*sorted(folder.glob("*.tar")), folder / "summary.json", folder / ".nv-meta" / "index.uuid"]
    return {path.name: path.read_bytes() for path in names}


def killed_at(operation: int, work: Callable[[], Any], folder: Path) -> bool:
    """Run `work` in a process that kills itself right before its nth operation on files below `folder`.

    Returns:
        Whether it was killed; else it came to its end.
    """
    process = multiprocessing.get_context("fork").Process(target=_run_armed, args=(operation, work, str(folder)))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _run_armed(operation: int, work: Callable[[], Any], folder: str) -> None:
    process, seen = os.getpid(), 0

    def count(event: str, values: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in _FILE_EVENTS and os.getpid() == process and folder in str(values[0]):
            seen += 1
            if seen == operation:
                os.kill(process, signal.SIGKILL)

    sys.addaudithook(count)
    work()
