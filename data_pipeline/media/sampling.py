"""Which frames of a video are taken. Pure functions on numbers; nothing is opened here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.errors import InputError

SLACK = 1e-6
"""Frames or seconds; keeps a product that should be a whole number from being cut to the one below."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a container says about its video stream."""

    width: int
    """Pixels as stored, before a rotation that the file may ask for."""
    height: int
    fps: float
    """Average frames a second."""
    duration: float
    """Seconds."""
    num_frames: int


def sample_count(info: VideoInfo, fps: float, min_frames: int, max_frames: int) -> tuple[int, bool]:
    """How many frames are taken, and whether at a fixed rate (else spread evenly over the clip)."""
    want = math.ceil(info.duration * fps - SLACK)
    count = min(max(want, min_frames), max_frames, info.num_frames)
    return count, count == want


def sample_indices(info: VideoInfo, fps: float, min_frames: int, max_frames: int, name: str = "video") -> list[int]:
    """Frame numbers to decode, never decreasing.

    One frame every 1/fps seconds where that gives between `min_frames` and `max_frames` frames; otherwise that many
    spread evenly from the first to the last frame (never more than the clip has).

    Raises:
        InputError: `fps` is not positive or above the clip's own rate, or the clip has no frames.
    """
    if info.num_frames < 1 or info.fps <= 0:
        raise InputError(f"{name} has no frames")
    if not 0 < fps <= info.fps * (1 + SLACK):
        raise InputError(f"{name} has {info.fps:g} frames a second; fps is {fps:g}, it must be positive and not above that")
    count, fixed = sample_count(info, fps, min_frames, max_frames)
    if fixed:
        taken = np.floor(np.arange(count) * (info.fps / fps) + SLACK).astype(np.int64)
    else:
        taken = np.linspace(0, info.num_frames - 1, count).astype(np.int64)
    return np.minimum(taken, info.num_frames - 1).tolist()  # type: ignore[no-any-return]


def sample_times(info: VideoInfo, indices: Sequence[int], fps: float, fixed: bool) -> list[float]:
    """Seconds from the start that the result of `sample_indices` stands for."""
    return [i / fps for i in range(len(indices))] if fixed else [i / info.fps for i in indices]


def clock_frames(info: VideoInfo, fps: float, name: str = "video") -> tuple[list[int], list[float]]:
    """One frame every 1/fps seconds over the whole clip, or every frame of a slower clip: numbers, and seconds."""
    rate = min(fps, info.fps)
    indices = sample_indices(info, rate, 1, info.num_frames, name)
    return indices, sample_times(info, indices, rate, sample_count(info, rate, 1, info.num_frames)[1])


def indices_at(info: VideoInfo, times: Sequence[float], name: str = "video") -> list[int]:
    """The frame shown at each of `times` (seconds from the start): number trunc(t * fps).

    Raises:
        InputError: a time is negative or behind the clip's end.
    """
    taken = [math.floor(t * info.fps + SLACK) for t in times]
    for t, index in zip(times, taken, strict=True):
        if index < 0 or index >= info.num_frames:
            raise InputError(f"{name} has {info.num_frames} frames at {info.fps:g} a second; there is no frame at {t:g} s")
    return taken


def event_counts(times: Sequence[float], ends: Sequence[float], name: str = "video") -> list[int]:
    """How many of the frames at `times` belong to each event: those up to `ends[i]` that no earlier event took.

    The last event takes what is left.

    Raises:
        InputError: ends decrease, or an event would get no frame.
    """
    counts: list[int] = []
    taken = 0
    for i, end in enumerate(ends):
        last = len(times) if i == len(ends) - 1 else sum(t <= end + SLACK for t in times)
        if last <= taken:
            raise InputError(f"{name}: event {i} ends at {end:g} s and gets no frame; ends must grow by at least a frame")
        counts.append(last - taken)
        taken = last
    return counts
