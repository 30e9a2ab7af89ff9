"""A camera of this machine."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import av.container

from inference.sources.container import Slots, StreamReader
from inference.sources.source import Now, TimedFrame
from model.errors import InputError

_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
_STALL_SECONDS = 10.0


class CameraSource:
    """Frames of a camera, at most `fps` a second, always the newest.

    Args:
        device: a number as in `cam:0`, or a device such as `/dev/video0`.
        fps: frames a second that are shown.
        size: side of the model's square in pixels.
        container_format: how FFmpeg calls this kind of device; by default as the system has it.

    Raises:
        InputError: there is no such camera, or another program holds it.
    """

    live = True
    duration: float | None = None
    prompts: Sequence[tuple[float, str]] = ()

    def __init__(self, device: str, fps: float, size: int, *, container_format: str | None = None) -> None:
        self.name = f"camera {device}"
        self._size = size
        self._slots = Slots(fps)
        self._closed = threading.Event()
        form = container_format or _FORMATS.get(sys.platform, "v4l2")
        file = f"/dev/video{int(device)}" if device.isascii() and device.isdigit() and form == "v4l2" else device
        try:
            self._container: av.container.InputContainer = av.open(file, "r", format=form, timeout=(None, _STALL_SECONDS))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{self.name} ({file}) cannot be opened: {reason}; cameras here: {_cameras()}") from None

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        reader = StreamReader(self._container, self._slots, self._size, self._closed, paced=False)
        try:
            yield from reader.frames(clock)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{self.name} was lost: {getattr(error, 'strerror', None) or error}; plug it in and start again"
            ) from None

    def close(self) -> None:
        self._closed.set()


def _cameras() -> str:
    found = sorted((path.name for path in Path("/dev").glob("video*")), key=lambda name: int(re.sub(r"\D", "", name) or 0))
    return ", ".join(f"/dev/{name}" for name in found) or "none"
