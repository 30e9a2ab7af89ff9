"""A video file, frame by frame as if it were live."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from data_pipeline.media.decode import open_video, probe_video
from data_pipeline.media.resize import fit_frames
from data_pipeline.media.sampling import VideoInfo, indices_at
from inference.sources.source import Now, TimedFrame, slot_times
from model.errors import InputError

_SLACK = 1e-6


class VideoFileSource:
    """Frames of a file at `fps` a second, decoded one by one as they are drawn.

    Args:
        path: the file.
        fps: frames a second that are shown.
        size: side of the model's square in pixels.

    Raises:
        InputError: the file is missing or no video, or shows fewer frames a second.
    """

    live = False
    prompts: Sequence[tuple[float, str]] = ()

    def __init__(self, path: str | Path, fps: float, size: int) -> None:
        self.name = f"video {path}"
        self._path, self._size = path, size
        self._info = probe_video(path)
        self._times = stream_times(self._info, fps, self.name)
        self._closed = threading.Event()
        self.duration: float | None = len(self._times) / fps

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        indices = indices_at(self._info, self._times, self.name)
        with open_video(self._path) as video:
            for t, pixels in zip(self._times, video.frames(indices), strict=False):
                if self._closed.is_set():
                    return
                yield TimedFrame(t, fit_frames(torch.from_numpy(pixels)[None], self._size)[0])

    def close(self) -> None:
        self._closed.set()


def stream_times(info: VideoInfo, fps: float, name: str) -> list[float]:
    """Seconds at which the frames of a file reach a stream that shows `fps` frames a second.

    Raises:
        InputError: fps is not positive, or above the file's own rate.
    """
    if not 0 < fps <= info.fps * (1 + _SLACK):
        raise InputError(f"{name} has {info.fps:g} frames a second; --fps is {fps:g}, it must be positive and not above that")
    last = (info.num_frames - 1) / info.fps
    return slot_times(int(last * fps + _SLACK) + 1, fps)
