"""Frames of an open media stream as they come: decoding all, converting only those that are shown."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import av
import av.container
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from data_pipeline.media.resize import fit_frames
from inference.sources.source import Now, TimedFrame

CATCH_UP = 2.0
"""Seconds after opening in which frames that come faster than time are what the sender had kept: they are not held back."""
_FASTER = 0.01
"""Part by which a sender's seconds may be shorter than ours."""
_JUMP = 5.0
"""Seconds by which no sender's frame comes early: its times have jumped."""
_EARLY = 0.25
"""Part of the interval between two shown frames by which one may come early, because arrival times tremble."""
_CLOSEST = 0.5
"""Part of the interval by which two shown frames are apart at least, also where the first was late."""


class Slots:
    """Which of the frames that come are shown: at most one for each 1 / fps seconds of the clock.

    The slots lie at multiples of 1 / fps behind the first frame, so that trembling arrival times do not add up. After a gap
    the rhythm goes on from there; missed slots are not made up for.
    """

    def __init__(self, fps: float) -> None:
        self._interval = 1 / fps
        self._next = 0.0
        self._last = -math.inf

    def takes(self, now: float) -> bool:
        """Whether a frame that comes at `now` is shown; asking for it takes the slot."""
        if now < self._next - _EARLY * self._interval or now < self._last + _CLOSEST * self._interval:
            return False
        self._last = now
        missed = now - self._next > self._interval
        self._next = (now if missed else self._next) + self._interval
        return True


class MediaClock:
    """When the frames of a stream are due, by the times that its sender wrote.

    The first frame is due when it comes, the others as much later as their times say: what is sent faster than it plays is
    held back. Of a stream without an end, though, a frame must not wait for long: what comes faster within `CATCH_UP` seconds
    of the opening was kept by the sender and is passed on at once; later the clock follows a sender whose seconds are up to
    one per cent shorter, and begins anew where the sender's times jump.

    Args:
        opened: stream time of the opening.
        endless: the stream states no duration.
    """

    def __init__(self, opened: float, *, endless: bool) -> None:
        self._opened, self._endless = opened, endless
        self._anchor: float | None = None  # stream time at which the media's second 0 is due
        self._media = self._now = 0.0

    def due(self, media: float, now: float) -> float:
        """Stream time at which the frame of media second `media`, which came at `now`, is due."""
        if self._anchor is None:
            self._anchor = now - media
        elif self._endless:
            self._anchor = self._followed(self._anchor, media, now)
        self._media, self._now = media, now
        return self._anchor + media

    def _followed(self, anchor: float, media: float, now: float) -> float:
        early = anchor + media - now
        if early > _JUMP or media < self._media - _JUMP:
            return now - media
        if early <= 0:
            return anchor
        most = early if now - self._opened < CATCH_UP else _FASTER * (now - self._now)
        return anchor - min(early, most)


class StreamReader:
    """Reads one opening of a container to its end.

    Args:
        container: the open container; closed when reading ends.
        slots: which frames are shown; goes on over several readers of one source.
        size: side of the model's square in pixels.
        closed: set from any thread to end the reading.
        paced: hold frames back until they are due by a `MediaClock`.
        endless: the container has no duration.

    Attributes:
        position: media seconds of the newest decoded frame from the first.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        slots: Slots,
        size: int,
        closed: threading.Event,
        *,
        paced: bool = True,
        endless: bool = True,
    ) -> None:
        self.position = 0.0
        self._container, self._slots, self._size, self._closed = container, slots, size, closed
        self._paced, self._endless = paced, endless
        self._reformatter = VideoReformatter()

    def frames(self, clock: Now, begin: float = 0.0) -> Iterator[TimedFrame]:
        """Draw the frames behind media second `begin`.

        Raises:
            av.error.FFmpegError, OSError: the stream broke.
        """
        times = MediaClock(clock.now(), endless=self._endless)
        with self._container as container:
            for frame in container.decode(video=0):
                if self._closed.is_set():
                    return
                if frame.is_corrupt:
                    continue
                # RTSP knows the time of a frame only once the sender reported it: until then it is due when it is there.
                if frame.time is not None:
                    media = frame.time - _start(container)
                    if media <= begin and begin > 0:
                        continue
                    now = clock.now()
                    if self._paced and self._closed.wait(max(0.0, times.due(media, now) - now)):
                        return
                    self.position = media
                t = clock.now()
                if self._slots.takes(t):
                    yield TimedFrame(t, self._fitted(frame))

    def _fitted(self, frame: Any) -> torch.Tensor:
        pixels: np.ndarray[Any, Any] = self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        turns = round(frame.rotation / 90) % 4
        pixels = np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
        return fit_frames(torch.from_numpy(pixels)[None], self._size)[0]


def _start(container: av.container.InputContainer) -> float:
    stream = container.streams.video[0]
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
