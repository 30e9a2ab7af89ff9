"""Frames of a video file, fitted into the model's square; `backend` says which library decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from data_pipeline.media.backend import Decoding
from data_pipeline.media.resize import fit_frames
from data_pipeline.media.sampling import VideoInfo, indices_at, sample_count, sample_indices, sample_times
from data_pipeline.media.video import MAX_MISSING, MAX_MISSING_SHARE, Pixels, Source, Video
from model.errors import InputError

__all__ = [
    "MAX_MISSING",
    "MAX_MISSING_SHARE",
    "frames_at",
    "frames_at_times",
    "load_frames",
    "open_video",
    "probe_video",
    "sample_video",
]

_SMALL = 256 * 256
"""Pixels of a frame up to which all frames are resized at once; of larger ones a single frame is held at a time."""


@contextmanager
def open_video(source: Source, name: str | None = None, decoding: Decoding | None = None) -> Iterator[Video]:
    """Open a video for reading.

    Raises:
        InputError: the file is missing, or is not a video; also for damage met while it is open.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "video")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise InputError(f"video {label} does not exist")
    with (decoding or Decoding()).opener()(source, label) as video:
        yield video


def probe_video(source: Source, name: str | None = None) -> VideoInfo:
    """Size, rate, duration and frame count from the container's metadata."""
    with open_video(source, name) as video:
        return video.info


def load_frames(
    source: Source,
    indices: Sequence[int],
    size: int,
    name: str | None = None,
    times: Sequence[float] | None = None,
    decoding: Decoding | None = None,
) -> torch.Tensor:
    """Decode the frames `indices` (never decreasing) and fit them into the model's square.

    Args:
        times: seconds that the indices stand for; they decide in a file with a varying rate.

    Returns:
        uint8 [len(indices), 3, size, size].

    Raises:
        InputError: the file is missing or damaged.
    """
    with open_video(source, name, decoding) as video:
        return _fit(video, indices, size, times)


def sample_video(
    source: Source, size: int, *, fps: float, min_frames: int, max_frames: int, name: str | None = None
) -> tuple[torch.Tensor, list[float]]:
    """Frames by the sampling rule, and the time in seconds of each.

    Returns:
        (uint8 [F, 3, size, size], F times).
    """
    with open_video(source, name) as video:
        indices = sample_indices(video.info, fps, min_frames, max_frames, f"video {video.name}")
        fixed = sample_count(video.info, fps, min_frames, max_frames)[1]
        times = sample_times(video.info, indices, fps, fixed)
        return _fit(video, indices, size, times), times


def frames_at(source: Source, times: Sequence[float], size: int, name: str | None = None) -> torch.Tensor:
    """The frames shown at `times` seconds (never decreasing): uint8 [len(times), 3, size, size]."""
    with open_video(source, name) as video:
        return _fit(video, indices_at(video.info, times, f"video {video.name}"), size, times)


def frames_at_times(source: Source, times: Sequence[float], name: str | None = None) -> list[Pixels]:
    """The frames shown at `times` seconds in their own size: RGB uint8 [height, width, 3] each."""
    with open_video(source, name) as video:
        return list(video.frames(indices_at(video.info, times, f"video {video.name}"), times))


def _fit(video: Video, indices: Sequence[int], size: int, times: Sequence[float] | None) -> torch.Tensor:
    out = torch.empty(len(indices), 3, size, size, dtype=torch.uint8)
    if video.info.width * video.info.height <= _SMALL:
        return fit_frames(torch.from_numpy(np.stack(list(video.frames(indices, times)))), size) if indices else out
    previous: Pixels | None = None
    for i, frame in enumerate(video.frames(indices, times)):
        out[i] = out[i - 1] if frame is previous else fit_frames(torch.from_numpy(frame)[None], size)[0]
        previous = frame
    return out
