"""Media files decoded to their last frame."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from data_pipeline.inspect.lint.text_rules import Found
from data_pipeline.loader.frames import decode_slots
from data_pipeline.media.image import open_image
from data_pipeline.packing.plan import Slot
from data_pipeline.schema import Sample
from model.errors import InputError

SIDE = 32
"""Pixels of the small grey copies that are compared."""
SAME = 2
"""Levels by which copies of one picture may differ after compression."""


@dataclass
class Seen:
    """What decoding a clip showed."""

    frames: int
    corrupt: int
    """Frames that the decoder marks as damaged."""
    moves: bool
    blank: bool


def decode_findings(sample: Sample, members: Mapping[str, bytes | Path], slots: Sequence[Slot] | None) -> Found:
    """Decode every media file once.

    Args:
        members: content or path of each file; all are there.
        slots: the frames that a stage wants, if one is known.
    """
    for index, media in enumerate(sample.media):
        content = members[media.file]
        source = content.read_bytes() if isinstance(content, Path) else content
        if media.type == "image":
            yield from _image(source, media.file)
            continue
        try:
            seen = watch(source)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            yield "undecodable", f"{media.file}: {error}"
            continue
        if seen.corrupt:
            yield "damaged-frames", f"{media.file}: {seen.corrupt} of {seen.frames} frames"
        wanted = [slot for slot in slots or [] if slot.media == index]
        missing = bool(wanted) and wanted[-1].frame >= seen.frames
        if not seen.frames:
            yield "frames-missing", f"{media.file} has no frames"
        elif missing:
            yield from _missing(wanted, sample, {media.file: source}, seen)
        elif media.num_frames and seen.frames < media.num_frames:
            yield "fewer-frames", f"{media.file}: {seen.frames} instead of {media.num_frames}"
        if seen.blank:
            yield "blank-media", media.file
        elif seen.frames > 1 and not seen.moves:
            yield "still-clip", media.file


def watch(content: bytes) -> Seen:
    """Decode a clip from its first to its last frame.

    Raises:
        FFmpegError, OSError, ValueError: the data are damaged.
    """
    seen = Seen(frames=0, corrupt=0, moves=False, blank=True)
    first: np.ndarray[tuple[int, ...], np.dtype[np.int16]] | None = None
    with av.open(io.BytesIO(content), "r", metadata_errors="replace") as container:
        if not container.streams.video:
            raise ValueError("there is no video stream")
        streams: Any = container.streams
        stream = streams.best("video")  # not a cover picture, if there is anything else
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            seen.frames += 1
            seen.corrupt += bool(frame.is_corrupt)
            if seen.moves and not seen.blank:
                continue
            small = frame.reformat(SIDE, SIDE, "gray").to_ndarray().astype(np.int16)
            first = small if first is None else first
            seen.moves |= bool(np.abs(small - first).max() > SAME)
            seen.blank &= _single_colour(small)
    seen.blank &= not seen.moves and seen.frames > 0
    return seen


def _single_colour(pixels: np.ndarray[tuple[int, ...], np.dtype[np.int16]]) -> bool:
    return bool(pixels.max() - pixels.min() <= SAME)


def _image(content: bytes, name: str) -> Found:
    try:
        picture = open_image(content, name)
    except InputError as error:
        yield "undecodable", str(error)
        return
    bounds: list[tuple[int, int]] = picture.getextrema()  # type: ignore[assignment]
    if all(high - low <= SAME for low, high in bounds):
        yield "blank-media", name


def _missing(wanted: Sequence[Slot], sample: Sample, members: Mapping[str, bytes], seen: Seen) -> Found:
    """The loader repeats a last frame for a few that are missing, and refuses more."""
    media = sample.media[wanted[0].media]
    text = f"{media.file}: {seen.frames} frames but number {wanted[-1].frame} is wanted"
    try:
        decode_slots(wanted, sample.media, members, SIDE, "the loader")
    except InputError:
        yield "frames-missing", text
    else:
        yield "fewer-frames", f"{text}; the last is repeated"
