"""What the main thread is doing: in which collective it waits, and where in our code."""

from __future__ import annotations

import linecache
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_COLLECTIVES = ("torch/distributed/distributed_c10d.py",)
_NOT_NAMES = ("wrapper", "<module>", "__exit__", "__enter__")
_OTHERS = ("site-packages", "/lib/python")


class Spot(NamedTuple):
    """Where a thread is."""

    collective: str
    """Name of the function of torch.distributed that it is in, "wait" where it waits for one begun before; or empty."""
    where: str
    """file:line and function of the innermost frame that is not of a library."""


def main_thread_spot() -> Spot:
    """Of this process's main thread, asked from another thread."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return spot_of(frame)


def spot_of(frame: FrameType | None) -> Spot:
    """From the innermost frame outwards."""
    collective, innermost = "", frame
    if frame is not None and ".wait(" in linecache.getline(frame.f_code.co_filename, frame.f_lineno) and not _is_threading(frame):
        collective = "wait"
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.endswith(_COLLECTIVES) and not name.startswith("_") and name not in _NOT_NAMES:
            collective = name
        elif _is_ours(file):
            return Spot(collective, _line(frame))
        frame = frame.f_back
    return Spot(collective, _line(innermost) if innermost is not None else "")


def _is_threading(frame: FrameType) -> bool:
    return frame.f_code.co_filename.endswith(("threading.py", "queue.py", "subprocess.py"))


def _is_ours(file: str) -> bool:
    """Not of an installed library or the interpreter, unless it is this package itself that is installed."""
    if file.startswith("<"):
        return False
    inside = any(part in file for part in _OTHERS)
    packages = ("moss_train", "model", "data_pipeline")
    return not inside or any(file.startswith(str(ROOT / package)) for package in packages)


def _line(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return f"{shown}:{frame.f_lineno} {frame.f_code.co_name}"
