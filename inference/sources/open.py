"""Which source a name means."""

from __future__ import annotations

import math
from pathlib import Path

from inference.sources.address import SCHEMES, is_address
from inference.sources.source import FrameSource
from model.errors import InputError

FORMS = "a video file, a folder of pictures, cam:0 or /dev/video0, rtsp://..., http(s)://..., world:SEED"


def open_source(name: str, *, fps: float, size: int, follow: bool = False) -> FrameSource:
    """The source called `name`, by its form: `cam:N` or a device, an address, `world:SEED`, a folder, else a file.

    Args:
        name: as given with --source.
        fps: frames a second that are shown.
        size: side of the model's square in pixels.
        follow: of a folder: go on with pictures that come later.

    Raises:
        InputError: there is nothing of that name, or it cannot be read; fps is not positive and finite.
    """
    if not 0 < fps < math.inf:
        raise InputError(f"--fps is {fps:g}; it must be positive and finite")
    path = Path(name)
    if follow and not path.is_dir():
        raise InputError(f"--follow works on a folder; --source {name} is none")
    if name.startswith(("cam:", "/dev/")) or is_address(name):
        _require_pyav(name)
    if name.startswith(("cam:", "/dev/")):
        from inference.sources.camera import CameraSource

        return CameraSource(name.removeprefix("cam:"), fps, size)
    if name.startswith("world:"):
        from inference.sources.world import WorldSource

        return WorldSource(name.removeprefix("world:"), fps, size)
    if is_address(name):
        from inference.sources.network import NetworkSource

        return NetworkSource(name, fps, size)
    if "://" in name:
        raise InputError(f"--source {name} has an unknown scheme; use {', '.join(SCHEMES)}")
    if path.is_dir():
        from inference.sources.folder import FolderSource

        return FolderSource(path, fps, size, follow=follow)
    if not path.exists():
        raise InputError(f"--source {name} does not exist; name {FORMS}")
    from inference.sources.video_file import VideoFileSource

    return VideoFileSource(path, fps, size)


def _require_pyav(name: str) -> None:
    """Files are decoded by OpenCV too; what comes live is read by PyAV alone."""
    from data_pipeline.media.backend import import_problem

    problem = import_problem("pyav")
    if problem is not None:
        raise InputError(f"--source {name} is read with PyAV, which does not import here ({problem}); pip install av")
