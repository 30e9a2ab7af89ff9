"""Storing a clip again so that it decodes fast: smaller, a keyframe every few seconds, every frame at its own time.

Decoding is the whole cost of loading video, and it grows with the pixels stored, not with the pixels wanted.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from data_pipeline.media.decode import MAX_MISSING, MAX_MISSING_SHARE, probe_video
from model.errors import InputError

Source = str | os.PathLike[str] | bytes
"""A path, or the file's content."""

CODECS = ("libx264",)
TUNES = ("fastdecode", "none")
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_MAX_KEY_INTERVAL = 600
"""Frames. Keyframes are placed by time; this only binds where a clip has more frames than that between two of them."""
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""The same pixels on every processor."""


@dataclass(frozen=True, kw_only=True)
class TranscodeSettings:
    """What a clip is stored as: H.264, 8 bit 4:2:0, upright, without sound.

    Raises:
        InputError: a value is out of its range.
    """

    short_side: int = 560
    """Pixels, the most that the shorter side keeps. Never enlarged."""
    gop_seconds: float = 2.0
    """Longest time between two keyframes."""
    crf: int = 23
    """x264's quality: lower is better and larger; 18 is close to the source."""
    preset: str = "veryfast"
    """x264's effort when encoding."""
    tune: str = "fastdecode"
    """fastdecode leaves out x264's tools that are slow to decode (arithmetic coding, deblocking), for larger files | none"""
    codec: str = "libx264"
    force: bool = False
    """Transcode also a clip that is within `short_side` and `gop_seconds` already; else its file is kept as it is."""

    def __post_init__(self) -> None:
        if self.short_side < 16:
            raise InputError(f"short side is {self.short_side} pixels; it must be at least 16")
        if not self.gop_seconds > 0:
            raise InputError(f"seconds between keyframes is {self.gop_seconds}; it must be positive")
        if not 0 <= self.crf <= 51:
            raise InputError(f"crf is {self.crf}; it must lie within 0 (lossless) and 51")
        if self.preset not in PRESETS:
            raise InputError(f"preset is {self.preset!r}; use one of {', '.join(PRESETS)}")
        if self.tune not in TUNES:
            raise InputError(f"tune is {self.tune!r}; use one of {', '.join(TUNES)}")
        if self.codec not in CODECS:
            raise InputError(f"codec is {self.codec!r}; use one of {', '.join(CODECS)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for summaries."""
        return asdict(self)


def transcode(source: Source, settings: TranscodeSettings, name: str | None = None) -> bytes:
    """Store a clip again by `settings`.

    Frames are as many as before and keep their times from the first; the same file and settings give the same bytes with the
    same versions of PyAV's libraries (`encoder_versions`).

    Returns:
        An mp4; the file's own content where it is within the settings already.

    Raises:
        InputError: the file is missing or damaged.
    """
    label = name or (str(source) if not isinstance(source, bytes) else "video")
    content = source if isinstance(source, bytes) else _read(Path(source), label)
    if not settings.force and _within(content, settings, label):
        return content
    return _encode(content, settings, label)


def encoder_versions() -> dict[str, str]:
    """Versions that decide about the bytes of a transcoded clip."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = _add_stream(out, TranscodeSettings(), (16, 16), Fraction(1), Fraction(1))
        frame = VideoFrame(16, 16, "yuv420p")
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    build = re.search(rb"x264 - core (\d+)", buffer.getvalue())
    versions = {name: ".".join(map(str, av.library_versions[name])) for name in ("libavcodec", "libavformat", "libswscale")}
    return {"av": av.__version__, **versions, "x264": build.group(1).decode() if build else "unknown"}


def fitted_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the shorter side at most `short_side`, both even as 4:2:0 needs, never larger than before."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, 2 * round(width * scale / 2 - 0.25)), max(2, 2 * round(height * scale / 2 - 0.25))


def _read(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"video {label} cannot be read: {error.strerror}") from None


@contextmanager
def _opened(content: bytes, label: str) -> Iterator[tuple[av.container.InputContainer, Any]]:
    """The container and its video stream, decoded by one thread."""
    try:
        with av.open(io.BytesIO(content), "r", metadata_errors="replace") as container:
            streams: Any = container.streams
            stream = streams.best("video")  # not a cover picture, if there is anything else
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            yield container, stream
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"video {label} cannot be transcoded: {error}") from None


def _within(content: bytes, settings: TranscodeSettings, label: str) -> bool:
    """Whether the clip is small enough and has keyframes often enough; nothing is decoded."""
    info = probe_video(content, label)
    if min(info.width, info.height) > settings.short_side:
        return False
    with _opened(content, label) as (container, stream):
        stamped = [p for p in container.demux(stream) if p.size and p.pts is not None]
        packets = sorted((float(p.pts * p.time_base), p.is_keyframe) for p in stamped)
    if not packets or not packets[0][1]:
        return False
    times = [time for time, _ in packets]
    keys = [time for time, is_key in packets if is_key]
    gaps = np.diff([*keys, times[-1] + 1 / info.fps])
    return bool(gaps.max() <= settings.gop_seconds + 1.5 / info.fps)


def _encode(content: bytes, settings: TranscodeSettings, label: str) -> bytes:
    info = probe_video(content, label)
    buffer = io.BytesIO()
    with _opened(content, label) as (source, stream), av.open(buffer, "w", format="mp4") as out:
        writer = _Writer(out, settings, Fraction(info.fps).limit_denominator(100_000))
        for frame in source.decode(stream):
            if frame.is_corrupt:  # encoded again, what the decoder filled in would pass for the clip's own pictures for ever
                raise InputError(f"video {label} is damaged: the frame at {frame.time or 0:.3f} s cannot be decoded whole")
            writer.write(frame)
        writer.finish(label)
    missing = (info.duration - writer.end) * info.fps
    if missing > MAX_MISSING and missing > MAX_MISSING_SHARE * info.num_frames:
        raise InputError(
            f"video {label} ends after {writer.end:.2f} of {info.duration:.2f} s; the rest of the file is damaged or missing"
        )
    return buffer.getvalue()


class _Writer:
    """Encodes decoded frames at their own times.

    Attributes:
        end: seconds from the first frame to the end of the latest.
    """

    def __init__(self, out: av.container.OutputContainer, settings: TranscodeSettings, rate: Fraction) -> None:
        self.end = 0.0
        self._out = out
        self._settings = settings
        self._rate = rate
        self._stream: Any = None
        self._reformatter = VideoReformatter()
        self._base = Fraction(1)
        self._start = 0
        self._latest = -1
        self._duration = 1
        self._next_key = 0.0
        self._packet: Any = None
        self._first_dts = 0

    def write(self, frame: VideoFrame) -> None:
        """Encode the next frame; one whose time is unknown or not behind the one before follows that by a tick."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        pixels = _fitted(frame, self._settings.short_side, self._reformatter)
        if self._stream is None:
            self._base, self._start = Fraction(frame.time_base or 1 / self._rate), stamp or 0
            self._stream = _add_stream(self._out, self._settings, (pixels.width, pixels.height), self._rate, self._base)
            _tag_colours(self._stream, frame)
        pts = max(self._latest + 1, (stamp or 0) - self._start)
        self._duration = frame.duration or pts - max(self._latest, 0) or 1
        seconds = float(pts * self._base)
        due = seconds >= self._next_key
        if due:
            self._next_key = seconds + self._settings.gop_seconds - 1e-6
        pixels.pts, pixels.time_base, pixels.duration = pts, self._base, self._duration
        pixels.pict_type = PictureType.I if due else PictureType.NONE
        self._mux(self._stream.encode(pixels))
        self._latest, self.end = pts, float((pts + self._duration) * self._base)

    def finish(self, label: str) -> None:
        """Write what the encoder still holds."""
        if self._stream is None:
            raise InputError(f"video {label} has no frames that can be decoded")
        self._mux(self._stream.encode(None))
        last = self._packet
        # the file's length is counted in decoding order, whose last step must reach to the end of the last frame shown
        last.duration = self._latest + self._duration - (last.dts - self._first_dts)
        self._out.mux(last)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._packet is None:
                self._first_dts = packet.dts
            else:
                self._out.mux(self._packet)
            self._packet = packet


def _fitted(frame: VideoFrame, short_side: int, reformatter: VideoReformatter) -> VideoFrame:
    """8 bit 4:2:0, scaled and upright."""
    width, height = fitted_size(frame.width, frame.height, short_side)
    small = reformatter.reformat(frame, width, height, "yuv420p", interpolation=_SCALING, threads=1)
    turns = round(frame.rotation / 90) % 4
    if not turns:
        return small
    packed = small.to_ndarray()  # [height * 3 / 2, width]: the plane Y, then U and V at half the size
    planes: list[np.ndarray[Any, Any]] = [packed[:height]]
    planes += [p.reshape(height // 2, width // 2) for p in np.split(packed[height:].reshape(-1), 2)]
    turned = [np.rot90(plane, turns) for plane in planes]
    rows = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in turned])
    return VideoFrame.from_ndarray(rows.reshape(-1, turned[0].shape[1]), format="yuv420p")


def _add_stream(out: Any, settings: TranscodeSettings, size: tuple[int, int], rate: Fraction, base: Fraction) -> Any:
    """One thread and no dates: equal frames give equal bytes, whatever the machine."""
    options = {"crf": str(settings.crf), "preset": settings.preset, "threads": "1", "forced-idr": "1"}
    # else x264 estimates by the processor's own instructions, with AVX-512 even differently from run to run
    options["x264-params"] = "cpu-independent=1"
    if settings.tune != "none":
        options["tune"] = settings.tune
    stream = out.add_stream(settings.codec, rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.codec_context.time_base = base
    stream.codec_context.gop_size = _MAX_KEY_INTERVAL
    return stream


def _tag_colours(stream: Any, frame: VideoFrame) -> None:
    """What turns the planes into RGB again must be said of the new file too, or its colours shift."""
    context = stream.codec_context
    context.colorspace, context.color_range = frame.colorspace, frame.color_range
    context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
