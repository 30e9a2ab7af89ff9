"""OpenCV's decoder, for machines without PyAV: every frame is decoded in order, the wanted ones become RGB."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipeline.media.sampling import VideoInfo
from data_pipeline.media.video import Pixels, Source, Video
from model.errors import InputError


class OpenCvVideo(Video):
    """A video file opened by OpenCV. It tells no times beforehand, so a file with a varying rate is refused."""

    def __init__(self, capture: Any, name: str) -> None:
        import cv2

        self.name = name
        self._capture = capture
        self._counted = 0
        rate, count = capture.get(cv2.CAP_PROP_FPS), round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if rate <= 0 or count <= 0:
            raise InputError(f"video {name} states no frame rate or no duration; store it again as mp4")
        width, height = (round(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180:  # OpenCV states the upright size
            width, height = height, width
        self.info = VideoInfo(width=width, height=height, fps=rate, duration=count / rate, num_frames=count)

    def starts(self) -> Pixels | None:
        return None

    def decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, Pixels]]:
        import cv2

        wanted = iter(numbers)
        number = next(wanted, None)
        first = 0.0
        while number is not None and self._capture.grab():
            seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            first = seconds if self._counted == 0 else first
            self._counted += 1
            if self._counted <= number:
                continue
            if abs((seconds - first) * self.info.fps - number) >= 1.0:
                raise InputError(
                    f"video {self.name} has a varying rate, which OpenCV cannot follow; use data.decode.backend=pyav"
                )
            found, pixels = self._capture.retrieve()
            if not found:
                return
            yield number, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            number = next(wanted, None)

    def length(self) -> int:
        return self._counted


@contextmanager
def open_opencv(source: Source, label: str) -> Iterator[Video]:
    """Open a video for reading; content goes through a temporary file.

    Raises:
        InputError: the file is not a video.
    """
    import cv2

    with tempfile.NamedTemporaryFile(prefix="moss-", suffix=Path(label).suffix or ".mp4") as file:
        path = source
        if isinstance(source, bytes):
            file.write(source)
            file.flush()
            path = file.name
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        try:
            if not capture.isOpened():
                raise InputError(f"video {label} cannot be decoded: OpenCV cannot open it")
            yield OpenCvVideo(capture, label)
        except cv2.error as error:
            raise InputError(f"video {label} cannot be decoded: {error}") from None
        finally:
            capture.release()
