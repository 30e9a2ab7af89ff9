"""An open video: the same rules for whichever library decodes it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipeline.media.sampling import VideoInfo
from model.errors import InputError

Source = str | os.PathLike[str] | bytes
"""A path, or the file's content."""

Pixels = np.ndarray[Any, Any]

MAX_MISSING = 2
MAX_MISSING_SHARE = 0.1
"""A stream that ends early is an error where it lacks more than both of these; else its last frame is repeated."""


class Video(ABC):
    """An open video file.

    Attributes:
        name: what messages call it.
        info: size, rate, duration and number of frames.
    """

    name: str
    info: VideoInfo

    @abstractmethod
    def starts(self) -> Pixels | None:
        """Start of every frame in seconds from the first, where the file's rate varies; else None."""

    @abstractmethod
    def decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        """(number, RGB uint8 [height, width, 3], upright) of each of the growing `numbers` that the stream has."""

    @abstractmethod
    def length(self) -> int:
        """Frames of the stream; asked only when one was missing."""

    def frames(self, indices: Sequence[int], times: Sequence[float] | None = None) -> Iterator[Pixels]:
        """RGB frames uint8 [height, width, 3], upright, one for each of the never decreasing `indices`.

        May be called once. A file with a varying rate has no even numbering: of it, the frame shown at each of
        `times` is given (by default at i / fps seconds).

        Raises:
            InputError: the data are damaged, or the stream ends much too early.
        """
        wanted = list(indices)
        starts = self.starts() if wanted else None
        if starts is not None:
            shown = times if times is not None else [i / self.info.fps for i in wanted]
            wanted = [max(0, int(np.searchsorted(starts, t + 1e-6, side="right")) - 1) for t in shown]
        given = 0
        latest: Pixels | None = None
        for number, latest in self.decode(sorted(set(wanted))):
            while given < len(wanted) and wanted[given] <= number:
                given += 1
                yield latest
        missing = len(wanted) - given
        if missing and (latest is None or (missing > MAX_MISSING and missing > MAX_MISSING_SHARE * len(wanted))):
            raise InputError(
                f"video {self.name} ends after {self.length()} frames; {missing} of {len(wanted)} wanted frames are missing"
            )
        for _ in range(missing):
            assert latest is not None
            yield latest
