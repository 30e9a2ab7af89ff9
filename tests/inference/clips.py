"""Small real videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_clip(path: Path, levels: list[int], *, fps: int = 1, size: int = 28) -> Path:
    """An H.264 file with one flat frame per grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for level in levels:
            picture = np.full((size, size, 3), level, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
