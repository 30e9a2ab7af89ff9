"""What media files say of themselves, against what is stored about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from data_pipeline.inspect.lint.text_rules import Found
from data_pipeline.media.sampling import indices_at
from data_pipeline.schema import Media, Sample
from data_pipeline.shards.media_info import fill_info, video_info
from model.errors import InputError

STORED = ("width", "height", "rate", "duration", "num_frames")
TOLERANCE = 1e-3
"""Relative; stored values are rounded."""


def media_findings(sample: Sample, members: Mapping[str, bytes | Path], in_shard: bool) -> Found:
    """Faults of headers and times; fills in what an annotation does not hold yet, as preparing it would."""
    for name in sorted(set(members) - {m.file for m in sample.media}):
        yield "media-unused", name
    for media in sample.media:
        content = members.get(media.file)
        if content is None or (isinstance(content, Path) and not content.is_file()):
            yield "media-missing", media.file if content is None else f"{media.file} at {content}"
            continue
        actual = Media(type=media.type, file=media.file)
        try:
            fill_info(actual, content, media.file)
        except InputError as error:
            yield "media-unreadable", str(error)
            continue
        yield from _differences(media, actual)
        if in_shard and media.type == "video" and None in (media.rate, media.duration, media.num_frames):
            yield "no-media-info", media.file
        for name in STORED:
            if getattr(media, name) is None:
                setattr(media, name, getattr(actual, name))
        yield from _times(media)


def _differences(media: Media, actual: Media) -> Found:
    differing = []
    for name in STORED:
        stored, real = getattr(media, name), getattr(actual, name)
        if stored is not None and real is not None and not math.isclose(stored, real, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            differing.append(f"{name} {stored:g} instead of {real:g}")
    if differing:
        yield "media-mismatch", f"{media.file}: stored {', '.join(differing)}"


def _times(media: Media) -> Found:
    if media.type != "video":
        return
    info = video_info(media, media.file)
    if media.fps is not None and media.fps > info.fps * (1 + TOLERANCE):
        yield "frame-times", f"{media.file} has {info.fps:g} frames a second but fps is {media.fps:g}"
    if media.markers == "per_frame":
        try:
            indices_at(info, media.frame_times or [], media.file)
        except InputError as error:
            yield "frame-times", str(error)
    elif media.markers == "per_event":
        late = next((t for t in (media.frame_times or [])[:-1] if t >= info.duration), None)
        if late is not None:
            yield "frame-times", f"{media.file} lasts {info.duration:g} s but an event before its last ends at {late:g} s"
