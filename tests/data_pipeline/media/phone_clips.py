"""Clips as telephones, cameras and recorders write them, whose frames tell their own number."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np

BITS = 5
CLOCK = Fraction(1, 12000)


def numbered(number: int, width: int, height: int) -> np.ndarray[Any, Any]:
    """RGB uint8 [height, width, 3]: a bar for each bit from the left, bright for a 1; the lowest quarter is dark."""
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    columns = np.asarray(bits, dtype=np.uint8)[np.arange(width) * BITS // width] * 180 + 40
    pixels = np.tile(columns[None, :, None], (height, 1, 3)).astype(np.uint8)
    pixels[height * 3 // 4 :] = 10
    return pixels


def number_of(pixels: np.ndarray[Any, Any]) -> int:
    """The number that an upright frame, uint8 [height, width, 3], shows."""
    height, width = pixels.shape[:2]
    assert pixels[height * 7 // 8 :].mean() < 60, "the dark quarter is not below: the frame does not stand upright"
    row = pixels[height // 4 : height // 2].mean(axis=(0, 2))
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    return sum(int(row[c] > 130) << bit for bit, c in enumerate(centres))


def clip(
    count: int = 24,
    *,
    rate: int = 8,
    width: int = 80,
    height: int = 48,
    codec: str = "libx264",
    container: str = "mp4",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    times: list[float] | None = None,
    sound_first: bool = False,
    cover: bool = False,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
) -> bytes:
    """A file of `count` frames.

    Args:
        rotation: what the file asks players to turn by; the stored picture is turned the other way.
        times: start of each frame in seconds; by default at the constant rate.
        sound_first: put a sound track before the pictures.
        cover: put a still that is attached as cover art before the pictures.
        options: of the encoder.
        muxing: of the container.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=muxing or {}) as out:
        art = _add_cover(out) if cover else None
        sound = out.add_stream("aac" if container != "avi" else "mp3", rate=16000, layout="mono") if sound_first else None
        video: Any = out.add_stream(codec, rate=rate, options=options or {})
        turned = rotation % 180 != 0
        video.width, video.height = (height, width) if turned else (width, height)
        video.pix_fmt = pix_fmt
        if container in ("mp4", "mov"):
            video.codec_context.time_base = CLOCK
        if rotation:
            video.set_display_rotation(rotation)
        if art is not None:
            out.mux(art)
        for number in range(count):
            stored = np.ascontiguousarray(np.rot90(numbered(number, width, height), -rotation // 90))
            frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
            base = video.codec_context.time_base or Fraction(1, rate)
            frame.pts, frame.time_base = round((times[number] if times else number / rate) / base), base
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            _add_silence(out, sound, count / rate)
    return buffer.getvalue()


def _add_cover(out: Any) -> Any:
    """A stream of one picture without a number, marked as attached."""
    still = out.add_stream("mjpeg", rate=1)
    still.width, still.height, still.pix_fmt = 64, 64, "yuvj420p"
    still.disposition = av.stream.Disposition.attached_pic
    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255, dtype=np.uint8), format="rgb24")
    frame.pts = 0
    packets = [*still.encode(frame), *still.encode(None)]
    return packets[0]


def _add_silence(out: Any, sound: Any, seconds: float) -> None:
    for start in range(0, int(seconds * 16000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        out.mux(sound.encode(frame))
    out.mux(sound.encode(None))
