"""Video decoding with PyAV: one thread, every packet once in order, only the wanted frames become RGB."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from data_pipeline.media.resize import fit_frames
from data_pipeline.media.sampling import VideoInfo, indices_at, sample_count, sample_indices, sample_times
from model.errors import InputError

Source = str | os.PathLike[str] | bytes
"""A path, or the file's content."""

MAX_MISSING = 2
MAX_MISSING_SHARE = 0.1
"""A stream that ends early is an error where it lacks more than both of these; else its last frame is repeated."""


class Video:
    """An open video file.

    Attributes:
        info: size, rate, duration and number of frames.
        times: start of every frame in seconds where the file's rate varies, else None.
    """

    def __init__(self, container: av.container.InputContainer, name: str) -> None:
        self.name = name
        self._container = container
        if not container.streams.video:
            raise InputError(f"video {name} has no video stream")
        self._stream = container.streams.video[0]
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self.info = _read_info(container, self._stream, name)
        self._times: np.ndarray[Any, Any] | None = None

    def frames(self, indices: Sequence[int], times: Sequence[float] | None = None) -> Iterator[np.ndarray[Any, Any]]:
        """RGB frames uint8 [height, width, 3], upright, one for each of the never decreasing `indices`.

        May be called once. A file with a varying rate has no even numbering: of it, the frame shown at each of
        `times` is given (by default at i / fps seconds).

        Raises:
            InputError: the data are damaged, or the stream ends much too early.
        """
        starts = self._varying_times()
        wanted = list(indices)
        if starts is not None:
            shown = times if times is not None else [i / self.info.fps for i in wanted]
            wanted = [max(0, int(np.searchsorted(starts, t + 1e-6, side="right")) - 1) for t in shown]
        reformatter = VideoReformatter()
        given = 0
        latest: np.ndarray[Any, Any] | None = None
        number = -1
        for number, frame in enumerate(self._container.decode(self._stream)):
            if given == len(wanted):
                return
            if number < wanted[given]:
                continue
            latest = _upright(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray(), frame.rotation)
            while given < len(wanted) and wanted[given] <= number:
                given += 1
                yield latest
            if given == len(wanted):
                return
        missing = len(wanted) - given
        if missing and (latest is None or (missing > MAX_MISSING and missing > MAX_MISSING_SHARE * len(wanted))):
            raise InputError(
                f"video {self.name} ends after {number + 1} frames; {missing} of {len(wanted)} wanted frames are missing"
            )
        for _ in range(missing):
            assert latest is not None
            yield latest

    def _varying_times(self) -> np.ndarray[Any, Any] | None:
        """Frame times in seconds from the first, if they stray from a constant rate by a frame or more."""
        stream = self._stream
        if not stream.base_rate or not stream.average_rate or stream.base_rate == stream.average_rate:
            return None
        stamps = [p.pts for p in self._container.demux(stream) if p.size]
        self._container.seek(0)
        if not stamps or any(s is None for s in stamps) or stream.time_base is None:
            return None
        ordered = np.sort(np.asarray(stamps, dtype=np.float64))
        times = (ordered - ordered[0]) * float(stream.time_base)
        straying = np.abs(times - np.arange(len(times)) / self.info.fps)
        return times if straying.max() * self.info.fps >= 1.0 else None


@contextmanager
def open_video(source: Source, name: str | None = None) -> Iterator[Video]:
    """Open a video for reading.

    Raises:
        InputError: the file is missing, or is not a video; also for damage met while it is open.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "video")
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise InputError(f"video {label} does not exist")
    try:
        with av.open(
            io.BytesIO(source) if isinstance(source, bytes) else str(source), "r", metadata_errors="replace"
        ) as container:
            yield Video(container, label)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"video {label} cannot be decoded: {error}") from None


def probe_video(source: Source, name: str | None = None) -> VideoInfo:
    """Size, rate, duration and frame count from the container's metadata."""
    with open_video(source, name) as video:
        return video.info


def load_frames(
    source: Source, indices: Sequence[int], size: int, name: str | None = None, times: Sequence[float] | None = None
) -> torch.Tensor:
    """Decode the frames `indices` (never decreasing) and fit them into the model's square.

    Args:
        times: seconds that the indices stand for; they decide in a file with a varying rate.

    Returns:
        uint8 [len(indices), 3, size, size].

    Raises:
        InputError: the file is missing or damaged.
    """
    with open_video(source, name) as video:
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


def frames_at_times(source: Source, times: Sequence[float], name: str | None = None) -> list[np.ndarray[Any, Any]]:
    """The frames shown at `times` seconds in their own size: RGB uint8 [height, width, 3] each."""
    with open_video(source, name) as video:
        return list(video.frames(indices_at(video.info, times, f"video {video.name}"), times))


def _fit(video: Video, indices: Sequence[int], size: int, times: Sequence[float] | None) -> torch.Tensor:
    out = torch.empty(len(indices), 3, size, size, dtype=torch.uint8)
    previous: np.ndarray[Any, Any] | None = None
    small = video.info.width * video.info.height <= 256 * 256
    if small:  # one resize for all frames; large frames are fitted one by one, to hold one at a time
        return fit_frames(torch.from_numpy(np.stack(list(video.frames(indices, times)))), size) if indices else out
    for i, frame in enumerate(video.frames(indices, times)):
        out[i] = out[i - 1] if frame is previous else fit_frames(torch.from_numpy(frame)[None], size)[0]
        previous = frame
    return out


def _upright(pixels: np.ndarray[Any, Any], rotation: int) -> np.ndarray[Any, Any]:
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _read_info(container: av.container.InputContainer, stream: Any, name: str) -> VideoInfo:
    rate = stream.average_rate or stream.guessed_rate
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    else:
        duration = (container.duration or 0) / av.time_base
    if not rate or duration <= 0:
        raise InputError(f"video {name} states no frame rate or no duration; store it again as mp4")
    counts = [n for n in (stream.frames, round(duration * float(rate))) if n > 0]
    if not counts:
        raise InputError(f"video {name} has no frames")
    context = stream.codec_context
    return VideoInfo(width=context.width, height=context.height, fps=float(rate), duration=duration, num_frames=min(counts))
