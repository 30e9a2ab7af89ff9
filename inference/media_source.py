"""Frames of a file: all at once for questions, or one after the other with arrival times for streams."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from data_pipeline.media.decode import open_video, probe_video, sample_video
from data_pipeline.media.image import load_image
from data_pipeline.media.resize import fit_frames
from data_pipeline.media.sampling import VideoInfo, indices_at
from inference.arrivals import Arrival
from model.errors import InputError

_SLACK = 1e-6


def read_media(video: str | None, image: str | None, size: int, *, fps: float, min_frames: int, max_frames: int) -> torch.Tensor:
    """The frames of a video by the sampling rule, or the one of an image.

    Returns:
        uint8 [F, 3, size, size].

    Raises:
        InputError: both or neither are given, or the file cannot be read.
    """
    if (video is None) == (image is None):
        raise InputError("give exactly one of --video_path and --image_path")
    for name, value, least in (("minlen", min_frames, 0), ("maxlen", max_frames, 1)):
        if value < least:
            raise InputError(f"--video_{name} is {value}; it must be at least {least}")
    if image is not None:
        return load_image(image, size)[None]
    assert video is not None
    frames, _ = sample_video(video, size, fps=fps, min_frames=min_frames, max_frames=max_frames)
    return frames


def stream_times(info: VideoInfo, fps: float, name: str) -> list[float]:
    """Seconds at which the frames of a file reach a stream that shows `fps` frames a second.

    Raises:
        InputError: fps is not positive, or above the file's own rate.
    """
    if not 0 < fps <= info.fps * (1 + _SLACK):
        raise InputError(f"{name} has {info.fps:g} frames a second; --fps is {fps:g}, it must be positive and not above that")
    last = (info.num_frames - 1) / info.fps
    return [i / fps for i in range(int(last * fps + _SLACK) + 1)]


def video_arrivals(path: str | Path, fps: float, size: int) -> tuple[Iterator[Arrival], float]:
    """A video as a schedule of frames, decoded one by one as they are drawn, and the time at which it is over.

    Raises:
        InputError: the file is missing or damaged (damage in the middle shows when it is reached).
    """
    info = probe_video(path)
    times = stream_times(info, fps, f"video {path}")
    return _arrivals(path, info, times, size), len(times) / fps


def _arrivals(path: str | Path, info: VideoInfo, times: list[float], size: int) -> Iterator[Arrival]:
    with open_video(path) as video:
        for t, pixels in zip(times, video.frames(indices_at(info, times, f"video {path}")), strict=False):
            yield Arrival(t=t, frame=fit_frames(torch.from_numpy(pixels)[None], size)[0])
