"""A stream from an address: RTSP, HTTP and what else FFmpeg reads; lost connections are made again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import av
import av.container

from inference.sources.address import shown_address
from inference.sources.container import Slots, StreamReader
from inference.sources.source import Now, TimedFrame
from model.errors import InputError

OPEN_SECONDS = 10.0
STALL_SECONDS = 10.0
"""Without a byte for so long a connection counts as lost."""
RETRIES = 6
"""Connections in a row that bring no frame before the source gives up."""
_PROBE_MICROSECONDS = 500_000
"""Media time that FFmpeg may look at before the first frame; its own default is five seconds, by which a picture would lag."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
_END_SLACK = 1.0
"""A file may end so many seconds, or a twentieth of its duration, before the duration that it states."""


class NetworkSource:
    """Frames of an address, at most `fps` a second, stamped with the clock's time at which each was there.

    A lost connection is made again after 0.5, 1, 2, 4, 8, 8 seconds; a file goes on where it stopped. Frames of a stream
    that passed meanwhile are gone, as with any live picture.

    Args:
        url: the address; a password in it appears in no message.
        fps: frames a second that are shown.
        size: side of the model's square in pixels.
        stall_seconds: silence after which a connection counts as lost.
        first_wait: seconds before the first new connection.

    Attributes:
        reconnects: connections made again so far.

    Raises:
        InputError: nothing answers, or what answers holds no video; raised while the source is made.
    """

    live = True
    prompts: Sequence[tuple[float, str]] = ()

    def __init__(
        self, url: str, fps: float, size: int, *, stall_seconds: float = STALL_SECONDS, first_wait: float = _FIRST_WAIT
    ) -> None:
        self.name = f"stream {shown_address(url)}"
        self.reconnects = 0
        self._url, self._size = url, size
        self._stall, self._first_wait = stall_seconds, first_wait
        self._slots = Slots(fps)
        self._closed = threading.Event()
        try:
            self._container: av.container.InputContainer | None = self._open()
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.name} cannot be opened ({_reason(error)}); check that the address is on air") from None
        self.duration = _duration(self._container)
        self._frame_seconds = 1 / float(self._container.streams.video[0].average_rate or 10)

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        position, barren = 0.0, 0
        while not self._closed.is_set():
            reason = "it ended"
            try:
                container = self._container or self._reopen(position)
                self._container = None
                reader = StreamReader(container, self._slots, self._size, self._closed, endless=self.duration is None)
                for timed in reader.frames(clock, 0.0 if self.duration is None else position):
                    barren, position = 0, reader.position
                    yield timed
                if self.duration is not None and position > 0 and reader.position <= position and barren:
                    return  # the end was read twice: the file is shorter than it says
                position = max(position, reader.position)
            except (av.error.FFmpegError, OSError) as error:
                reason = _reason(error)
            if self._closed.is_set() or self._is_whole(position):
                return
            if barren == RETRIES:
                raise InputError(f"{self.name} was lost and did not come back in {RETRIES} tries ({reason}); start it again")
            self._closed.wait(min(self._first_wait * 2**barren, _LONGEST_WAIT))
            barren += 1
            self.reconnects += 1

    def close(self) -> None:
        self._closed.set()

    def _is_whole(self, position: float) -> bool:
        duration = self.duration
        return duration is not None and position >= duration - self._frame_seconds - min(_END_SLACK, 0.05 * duration)

    def _open(self) -> av.container.InputContainer:
        options = {"analyzeduration": str(_PROBE_MICROSECONDS)}
        if not self._url.lower().startswith("http"):
            options["fpsprobesize"] = "1"
            options["fflags"] = "nobuffer"  # what was read to look at the stream is not shown; a file would lack its beginning
        if self._url.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # over UDP lost packets would tear pictures
        container = av.open(self._url, "r", options=options, timeout=(OPEN_SECONDS, self._stall), metadata_errors="replace")
        if not container.streams.video:
            container.close()
            raise InputError(f"{self.name} has no video stream")
        return container

    def _reopen(self, position: float) -> av.container.InputContainer:
        """Opened anew; a file near the second where it stopped, if its container can be searched."""
        container = self._open()
        if self.duration is None or position == 0:
            return container
        try:
            container.seek(int(position * av.time_base) + (container.start_time or 0))
            return container
        except (av.error.FFmpegError, OSError):
            container.close()  # it stands anywhere now: read from the beginning, and pass over what was shown
            return self._open()


def _duration(container: av.container.InputContainer) -> float | None:
    """Seconds of a file that a server sends; None for a stream without an end."""
    stream = container.streams.video[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
