"""Small pictures of a row's frames."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.realtime.dialogue import Dialogue
from model.errors import InputError

if TYPE_CHECKING:
    from data_pipeline.media.video import Pixels

WIDTH, QUALITY = 72, 72
"""Pixels, and JPEG quality."""


def find_video(build: Path, part: Path, dialogue: Dialogue) -> Path | None:
    """The file that a row's frames come from: as the row names it, or in the part's folder `media` under its name or id."""
    places = [part / "media" / f"{dialogue.id}.mp4"]
    if dialogue.video:
        named = Path(dialogue.video)
        places = [part / named, part / "media" / named.name, build / named, named, *places]
    return next((place for place in places if place.is_file()), None)


def thumbnails(video: Path, times: Sequence[float]) -> list[str]:
    """Data URIs of the frames shown at these seconds, rising.

    Raises:
        InputError: the file is no video, or does not reach so far.
    """
    from data_pipeline.media.decode import open_video
    from data_pipeline.media.sampling import indices_at

    with open_video(video) as source:
        indices = indices_at(source.info, times, f"video {source.name}")
        found = [_data_uri(frame) for frame in source.frames(indices, times)]
    if len(found) != len(times):
        raise InputError(f"video {video} gave {len(found)} of {len(times)} frames")
    return found


def _data_uri(frame: Pixels) -> str:
    from PIL import Image

    picture = Image.fromarray(frame)
    height = max(1, round(picture.height * WIDTH / picture.width))
    # Pixels of a tiny picture stay square and sharp; a large one is averaged down.
    method = Image.Resampling.NEAREST if picture.width <= WIDTH else Image.Resampling.BILINEAR
    picture = picture.resize((WIDTH, height), method, reducing_gap=2.0 if picture.width > 2 * WIDTH else None)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
