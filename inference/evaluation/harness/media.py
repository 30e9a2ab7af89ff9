"""Pictures, lists of frames and videos as harnesses hand them over, to frames of the model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipeline.media.decode import frames_at, open_video, probe_video, sample_video
from data_pipeline.media.image import load_image
from inference.protocol.images import frame_of
from model.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_START, _END = ("start_time", "video_start", "start"), ("end_time", "video_end", "end")


@dataclass(frozen=True)
class Sampling:
    """How a clip becomes frames."""

    size: int
    """Side of the model's square in pixels."""
    fps: float
    min_frames: int
    max_frames: int


@dataclass(frozen=True)
class Clip:
    """A picture, some frames or a video, which is not read yet."""

    key: Hashable
    """Equal where the frames are."""
    read: Callable[[Sampling], torch.Tensor]
    """uint8 [F, 3, size, size]."""


def clip_of(visual: Any) -> Clip:
    """What a task calls a visual.

    Args:
        visual: a path or file:// address of a picture or a video; a PIL picture; an array or tensor uint8 [height, width, 3] or
            [F, height, width, 3]; a list of pictures, which are frames of one clip; a dictionary with one of these under url,
            path, image, video or bytes, and a part of a video from start_time to end_time seconds.

    Raises:
        InputError: it is something else, such as sound or an address of the network.
    """
    if isinstance(visual, Mapping):
        return _clip_of_mapping(visual)
    if isinstance(visual, str | os.PathLike):
        return _clip_of_path(os.fspath(visual))
    if isinstance(visual, list | tuple):
        if not visual:
            raise InputError("a clip is an empty list of frames; give at least one")
        return _clip_of_frames(list(visual))
    if hasattr(visual, "ndim") and visual.ndim == 4:
        return _clip_of_frames(list(visual))
    return _clip_of_frames([visual])


def _clip_of_mapping(visual: Mapping[str, Any]) -> Clip:
    kind = visual.get("type")
    if kind == "audio" or "array" in visual:
        raise InputError("a question brings sound, which the model cannot hear; choose tasks of pictures and videos")
    content = next((visual[name] for name in ("url", "path", "image", "video") if visual.get(name) is not None), None)
    if isinstance(visual.get("bytes"), bytes):
        data = visual["bytes"]
        if kind == "video" or (isinstance(content, str) and not content.lower().endswith(PICTURES)):
            raise InputError("a video comes as bytes; give its path")
        return Clip(("bytes", hashlib.sha1(data).hexdigest()), lambda how: load_image(data, how.size, "in a dictionary")[None])
    if content is None:
        raise InputError(f"a visual has the fields {', '.join(map(str, visual))}; give one of url, path, image, video, bytes")
    if isinstance(content, Mapping):
        return _clip_of_mapping({**visual, "url": None, **content})
    start, end = (next((visual[n] for n in names if visual.get(n) is not None), None) for names in (_START, _END))
    if isinstance(content, str | os.PathLike):
        return _clip_of_path(os.fspath(content), kind, start, end)
    return clip_of(content)


def _clip_of_path(name: str, kind: str | None = None, start: float | None = None, end: float | None = None) -> Clip:
    path = name.removeprefix("file://")
    if "://" in path or path.startswith("data:"):
        raise InputError(f"a visual is {path[:80]}; only files of this machine are read: download it and give its path")
    if not Path(path).is_file():
        raise InputError(f"a visual is {path[:200]}, and there is no such file; check where the task's media lie")
    if kind == "image" or (kind is None and path.lower().endswith(PICTURES)):
        return Clip(("picture", os.path.realpath(path)), lambda how: load_image(path, how.size)[None])
    key = ("video", os.path.realpath(path), start, end)
    return Clip(key, lambda how: _video(path, how) if start is None and end is None else _part(path, start or 0.0, end, how))


def _video(path: str, how: Sampling) -> torch.Tensor:
    with open_video(path) as video:
        rate = min(how.fps, video.info.fps)
    return sample_video(path, how.size, fps=rate, min_frames=how.min_frames, max_frames=how.max_frames)[0]


def _part(path: str, start: float, end: float | None, how: Sampling) -> torch.Tensor:
    """Frames from `start` to `end` seconds: one every 1/fps seconds, or as many as are allowed, evenly spaced."""
    info = probe_video(path)
    if info.fps <= 0 or info.num_frames < 1:
        raise InputError(f"video {path} has no frames")
    last = (info.num_frames - 1) / info.fps
    first, final = min(max(start, 0.0), last), min(last if end is None else end, last)
    if end is not None and end <= start:
        raise InputError(f"video {path}: a part from {start:g} to {end:g} s is asked for; its end must be behind its start")
    final = max(final, first)
    within = int((final - first) * info.fps + 1e-6) + 1
    rate = min(how.fps, info.fps)
    want = int((final - first) * rate + 1e-6) + 1
    count = min(max(want, how.min_frames), how.max_frames, within)
    times = [first + i / rate for i in range(count)] if count == want else np.linspace(first, final, count).tolist()
    return frames_at(path, times, how.size)


def _clip_of_frames(pictures: list[Any]) -> Clip:
    """A clip of pictures in memory; of more than `max_frames` evenly spaced ones are shown."""
    arrays = [_pixels(picture) for picture in pictures]
    digest = hashlib.sha1()
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(array.tobytes())

    def read(how: Sampling) -> torch.Tensor:
        shown = arrays
        if len(arrays) > how.max_frames:
            shown = [arrays[i] for i in np.linspace(0, len(arrays) - 1, how.max_frames).astype(int)]
        return torch.stack([frame_of(array, how.size) for array in shown])

    return Clip(("frames", digest.hexdigest()), read)


def _pixels(picture: Any) -> Any:
    """uint8 [height, width, 3] of a picture in memory."""
    from PIL import Image

    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    if isinstance(picture, torch.Tensor):
        picture = picture.cpu().numpy()
    if not isinstance(picture, np.ndarray):
        raise InputError(f"a visual is {type(picture).__name__}; give paths, PIL pictures, or uint8 arrays [height, width, 3]")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InputError(f"a visual is {picture.dtype} {list(picture.shape)}; give uint8 arrays [height, width, 3]")
    return picture
