"""A few frames of a scenario's clip, small enough to stand in a page by the hundred."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from model.errors import InputError

JsonObject = dict[str, Any]
QUALITY = 70
"""Of JPEG."""


def shown_frames(count: int, most: int) -> list[int]:
    """Indices of at most `most` frames, evenly spread, the first among them."""
    return list(range(count)) if count <= most else [index * count // most for index in range(most)]


def thumbnails(line: JsonObject, most: int = 16, width: int = 72) -> tuple[list[tuple[int, str]], str]:
    """Frames of a timeline as data URIs of JPEG, with their indices, and why there are none.

    Args:
        line: needs `frames` or `video` (absolute paths), `num_frames`, `fps` and `begin`.
        width: in pixels; heights follow.
    """
    from PIL import Image

    from data_pipeline.media.decode import frames_at_times
    from data_pipeline.media.image import open_image

    indices = shown_frames(int(line["num_frames"]), most)
    try:
        if line["frames"]:
            pictures = [open_image(Path(line["frames"][index])) for index in indices]
        else:
            times = [line["begin"] + index / line["fps"] for index in indices]
            pictures = [Image.fromarray(frame) for frame in frames_at_times(Path(line["video"]), times)]
    except (InputError, OSError) as error:
        return [], f"no frames: {error}"
    return [(index, _uri(picture, width)) for index, picture in zip(indices, pictures, strict=False)], ""


def _uri(picture: Any, width: int) -> str:
    from PIL import Image

    height = max(1, round(picture.height * width / picture.width))
    method = Image.Resampling.NEAREST if picture.width < width else Image.Resampling.BILINEAR
    buffer = io.BytesIO()
    picture.convert("RGB").resize((width, height), method).save(buffer, format="JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
