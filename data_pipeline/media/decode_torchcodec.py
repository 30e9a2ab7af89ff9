"""torchcodec's decoder on the CPU, one thread. Needs the package and the FFmpeg libraries that it was built against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from data_pipeline.media.sampling import VideoInfo
from data_pipeline.media.video import Pixels, Source, Video
from model.errors import InputError

_AT_ONCE = 8
"""Frames that are decoded in one call: large ones must not pile up."""


class TorchCodecVideo(Video):
    """A video file opened by torchcodec."""

    def __init__(self, decoder: Any, name: str) -> None:
        self.name = name
        self._decoder = decoder
        about = decoder.metadata
        rate, duration = about.average_fps_from_header, about.duration_seconds_from_header or about.duration_seconds
        if not rate or not duration:
            raise InputError(f"video {name} states no frame rate or no duration; store it again as mp4")
        counts = [n for n in (about.num_frames_from_header, round(duration * rate)) if n]
        if not counts:
            raise InputError(f"video {name} has no frames")
        width, height = about.width, about.height
        if round((about.rotation or 0) / 90) % 2:  # torchcodec states the upright size
            width, height = height, width
        self.info = VideoInfo(width=width, height=height, fps=float(rate), duration=float(duration), num_frames=min(counts))

    def starts(self) -> Pixels | None:
        """Of a file with a varying rate, at the price of decoding it once more: the times are told with frames only."""
        about = self._decoder.metadata
        if abs(about.average_fps - about.average_fps_from_header) * about.duration_seconds < 0.5:
            return None
        parts = [self._decoder.get_frames_at(part).pts_seconds.numpy() for part in _parts(range(self.length()))]
        times: Pixels = np.concatenate(parts)
        straying = np.abs(times - times[0] - np.arange(len(times)) / self.info.fps)
        return times - times[0] if straying.max() * self.info.fps >= 1.0 else None

    def decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        for part in _parts([n for n in numbers if n < self.length()]):
            pixels = self._decoder.get_frames_at(part).data  # uint8 [part, height, width, 3]
            yield from zip(part, pixels.numpy(), strict=True)

    def length(self) -> int:
        return int(self._decoder.metadata.num_frames)


@contextmanager
def open_torchcodec(source: Source, label: str) -> Iterator[Video]:
    """Open a video for reading.

    Raises:
        InputError: the file is not a video; also for damage met while it is open.
    """
    from torchcodec.decoders import VideoDecoder

    try:
        given = source if isinstance(source, bytes) else str(source)
        yield TorchCodecVideo(VideoDecoder(given, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"), label)
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise InputError(f"video {label} cannot be decoded: {reason}") from None


def _parts(numbers: Sequence[int]) -> Iterator[list[int]]:
    for first in range(0, len(numbers), _AT_ONCE):
        yield list(numbers[first : first + _AT_ONCE])
