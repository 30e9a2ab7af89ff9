"""Clips whose every frame differs, in several codecs and structures, and all of their frames decoded plainly."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np

Frames = list[np.ndarray[Any, Any]]


def moving_clip(
    count: int, codec: str = "libx264", container: str = "mp4", width: int = 160, height: int = 96, gop: int = 12,
    rate: int = 8, first_stamp: int = 0, **options: str,
) -> bytes:  # fmt: skip
    """A textured background that pans, with a bright box that jumps; noise keeps all frames apart."""
    noise = np.random.default_rng(0)
    background = np.kron(noise.integers(40, 200, (height // 4, width // 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options={"g": str(gop), "threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(count):
            pixels = background[i % height : i % height + height, 2 * i % width : 2 * i % width + width].copy()
            left = 13 * i % (width - 16)
            pixels[10:26, left : left + 16] = (250, 20 * i % 250, 30)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = i + first_stamp, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def all_frames(content: bytes) -> Frames:
    """Every frame as PyAV gives them one after the other."""
    with av.open(io.BytesIO(content)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
