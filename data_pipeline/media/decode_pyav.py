"""PyAV: one thread, only the packets that wanted frames depend on, only wanted frames become RGB."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av
import av.container
import numpy as np
from av.video.reformatter import VideoReformatter

from data_pipeline.media.packet_index import PacketIndex, index_packets
from data_pipeline.media.sampling import VideoInfo
from data_pipeline.media.video import Pixels, Source, Video
from model.errors import InputError


class PyAvVideo(Video):
    """A video file opened by PyAV."""

    def __init__(self, container: av.container.InputContainer, name: str, skip_non_reference: bool = False) -> None:
        """
        Args:
            skip_non_reference: instead of a frame on which no other depends, give the nearest one on which others do.
        """
        self.name = name
        self._container = container
        streams: Any = container.streams
        self._stream = streams.best("video")  # not a cover picture, if there is anything else
        if self._stream is None:
            raise InputError(f"video {name} has no video stream")
        if self._stream.codec_context is None:
            raise InputError(f"video {name} is of a codec that this build of PyAV does not know; store it again as H.264")
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self._skip = skip_non_reference
        self._reformatter = VideoReformatter()
        self._index: PacketIndex | None = None
        self._counted = 0
        stated = self._stream.duration and "matroska" not in container.format.name  # Matroska states the whole file's duration
        self._times = None if stated else _frame_times(container, self._stream)
        self.info = _read_info(container, self._stream, name, self._times)

    def starts(self) -> Pixels | None:
        base, average = self._stream.base_rate, self._stream.average_rate
        if self._times is None and base and average and base != average:
            self._times = _frame_times(self._container, self._stream)
        return self._times if self._times is not None and _strays(self._times, self.info.fps) else None

    def decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        given = 0
        every_frame = not numbers or len(numbers) == numbers[-1] + 1
        if self._skip or not every_frame:
            try:
                self._index = index_packets(self._container, self._stream)
            except av.error.FFmpegError:
                self._index = None  # damage: what lies in front of it can still be decoded
            self._rewind()
        if self._index is not None:
            for number, pixels in self._decode_needed(self._index, numbers):
                if number != numbers[given]:
                    break
                given += 1
                yield number, pixels
            if given == sum(n < len(self._index) for n in numbers):
                return
            self._rewind()  # the decoder did not show all that the packets promised: count frames instead
        yield from self._decode_all(numbers[given:])

    def length(self) -> int:
        return self._counted if self._index is None else max(len(self._index), self._counted)

    def _decode_needed(self, index: PacketIndex, numbers: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        present = [n for n in numbers if n < len(index)]
        taken = index.used_neighbours(present) if self._skip else present
        packets = index.shown()[taken]
        needed = set(index.stamps[index.needed(packets)].tolist())
        wanted: dict[int | None, list[int]] = {}
        for number, stamp in zip(present, index.stamps[packets].tolist(), strict=True):
            wanted.setdefault(stamp, []).append(number)
        for frame in self._feed(needed):
            for number in wanted.get(frame.pts, ()):
                yield number, self._pixels(frame)

    def _feed(self, needed: set[int]) -> Iterator[Any]:
        """Frames of the packets with these stamps; no packet behind the last of them is read."""
        left = len(needed)
        for packet in self._container.demux(self._stream):
            if packet.pts not in needed or not packet.size:
                continue
            yield from self._stream.decode(packet)
            left -= 1
            if not left:
                break
        yield from self._stream.decode(None)

    def _decode_all(self, numbers: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        wanted = iter(numbers)
        number = next(wanted, None)
        self._counted = 0
        if number is None:
            return
        for count, frame in enumerate(self._container.decode(self._stream)):
            self._counted = count + 1
            if count == number:
                yield count, self._pixels(frame)
                number = next(wanted, None)
                if number is None:
                    return

    def _rewind(self) -> None:
        self._container.seek(0)

    def _pixels(self, frame: Any) -> Pixels:
        if frame.is_corrupt:  # the decoder fills damaged places with neighbouring pixels
            raise InputError(f"video {self.name} is damaged: the frame at {frame.time or 0:.3f} s cannot be decoded whole")
        turns = round(frame.rotation / 90) % 4
        pixels = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@contextmanager
def open_pyav(source: Source, label: str, skip_non_reference: bool = False) -> Iterator[Video]:
    """Open a video for reading.

    Raises:
        InputError: the file is not a video; also for damage met while it is open.
    """
    try:
        with _open(source) as container:
            yield PyAvVideo(container, label, skip_non_reference)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"video {label} cannot be decoded: {error}") from None


def _open(source: Source) -> av.container.InputContainer:
    """Without decoding the first frames, which most containers describe well enough and which are large."""
    for options in ({"skip_frame": "all"}, {}):
        file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        container = av.open(file, "r", metadata_errors="replace", options=options)
        videos = container.streams.video
        described = videos and videos[0].codec_context is not None and videos[0].codec_context.width and videos[0].average_rate
        if not options or described:
            break
        container.close()
    return container


def _read_info(container: av.container.InputContainer, stream: Any, name: str, times: Pixels | None) -> VideoInfo:
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    if times is not None and rate > 0:  # the container's duration, if any, would count other streams and a late start too
        duration = float(times[-1]) + 1 / rate
        counts = [len(times)]
        rate = len(times) / duration if _strays(times, rate) else rate
    else:
        of_stream = stream.duration and stream.time_base
        duration = float(stream.duration * stream.time_base) if of_stream else (container.duration or 0) / av.time_base
        counts = [n for n in (stream.frames, round(duration * rate)) if n > 0]
    if rate <= 0 or duration <= 0:
        raise InputError(f"video {name} states no frame rate or no duration; store it again as mp4")
    if not counts:
        raise InputError(f"video {name} has no frames")
    context = stream.codec_context
    return VideoInfo(width=context.width, height=context.height, fps=rate, duration=duration, num_frames=min(counts))


def _frame_times(container: av.container.InputContainer, stream: Any) -> Pixels | None:
    """Seconds of every frame from the first, in the order of showing; None where the packets do not tell."""
    try:
        stamps = [p.pts for p in container.demux(stream) if p.size]
    except av.error.FFmpegError:
        return None
    if not stamps or any(s is None for s in stamps) or stream.time_base is None:
        return None
    container.seek(0)
    ordered = np.sort(np.asarray(stamps, dtype=np.float64))
    times: Pixels = (ordered - ordered[0]) * float(stream.time_base)
    return times


def _strays(times: Pixels, rate: float) -> bool:
    """Whether frames are away from their places at a constant rate by a frame or more."""
    return bool(np.abs(times * rate - np.arange(len(times))).max() >= 1.0)
