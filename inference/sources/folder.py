"""A folder of pictures as a stream, also one that still fills."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from data_pipeline.media.image import load_image
from inference.sources.source import Now, TimedFrame
from model.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
_LOOK_EVERY = 0.1
"""Seconds between two looks into a folder that still fills."""
_PATIENCE = 2.0
"""Seconds that a new picture may take until it is whole."""


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Orders `frame2` before `frame10`: digits count as numbers, the rest as text without case."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts if part)


class FolderSource:
    """Pictures of a folder in natural order, `fps` a second.

    Args:
        path: the folder.
        fps: pictures a second.
        size: side of the model's square in pixels.
        follow: go on with pictures that are put into the folder later, until closed.

    Attributes:
        unreadable: new pictures of a followed folder that did not become whole within two seconds.

    Raises:
        InputError: there is no such folder, or no picture in one that is not followed.
    """

    prompts: Sequence[tuple[float, str]] = ()

    def __init__(self, path: str | Path, fps: float, size: int, *, follow: bool = False) -> None:
        self.name = f"folder {path}"
        self.live = follow
        self.unreadable: list[str] = []
        self._path, self._fps, self._size = Path(path), fps, size
        self._closed = threading.Event()
        if not self._path.is_dir():
            raise InputError(f"{self.name} does not exist; name a folder of pictures")
        self._first = self._names()
        if not self._first and not follow:
            kinds = ", ".join(sorted(SUFFIXES))
            raise InputError(f"{self.name} holds no picture ({kinds}); put some into it or pass --follow to wait for them")
        self.duration: float | None = None if follow else len(self._first) / fps

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        return self._followed(clock) if self.live else self._recorded()

    def close(self) -> None:
        self._closed.set()

    def _names(self) -> list[str]:
        found = [entry.name for entry in self._path.iterdir() if entry.suffix.lower() in SUFFIXES and entry.name[0] != "."]
        return sorted(found, key=natural_key)

    def _recorded(self) -> Iterator[TimedFrame]:
        for number, name in enumerate(self._first):
            if self._closed.is_set():
                return
            yield TimedFrame(number / self._fps, load_image(self._path / name, self._size))

    def _followed(self, clock: Now) -> Iterator[TimedFrame]:
        seen: set[str] = set()
        due = 0.0
        while not self._closed.is_set():
            fresh = [name for name in self._names() if name not in seen]
            for name in fresh:
                seen.add(name)
                frame = self._when_whole(name)
                if self._closed.wait(max(0.0, due - clock.now())):
                    return
                if frame is not None:
                    t = max(due, clock.now())
                    due = t + 1 / self._fps
                    yield TimedFrame(t, frame)
            if not fresh:
                self._closed.wait(_LOOK_EVERY)

    def _when_whole(self, name: str) -> torch.Tensor | None:
        """The picture once it is all there: one that is just being written cannot be decoded yet."""
        for _ in range(round(_PATIENCE / _LOOK_EVERY)):
            try:
                return load_image(self._path / name, self._size)
            except InputError:
                if not (self._path / name).exists() or self._closed.wait(_LOOK_EVERY):
                    return None  # renamed or removed: nothing to wait for
        self.unreadable.append(name)
        return None
