"""The media columns of a share-GPT row: plain paths, and the reference's descriptors of real-time videos."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import InputError

REALTIME = "[RealTime QA]"
EVENTS = "[Streaming Event Caption]"
INFO = "[INFO]"
PLACEHOLDER = "[PLACEHOLDER]"


@dataclass
class MediaEntry:
    """One file, whatever number of entries of the column speak of it."""

    path: str
    type: str
    markers: str = "one"
    times: list[float] | None = None
    """Seconds, one for each marker."""


def media_entries(values: Any, kind: str) -> list[MediaEntry]:
    """Group a column into files.

    A descriptor opens a real-time video and is followed by one placeholder for each further marker.

    Raises:
        InputError: an entry is not text, a descriptor is damaged, or the placeholders do not match its times.
    """
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, Sequence) or not all(isinstance(v, str) for v in values):
        raise InputError(f"the {kind} column must be a list of texts")
    entries: list[MediaEntry] = []
    owed = 0
    for value in values:
        mode = next((m for m in (REALTIME, EVENTS) if value.startswith(m)), None)
        rest = value[len(mode) :] if mode else value
        if mode and rest == PLACEHOLDER:
            owed -= 1
            if owed < 0:
                raise InputError(f"there are more {mode}{PLACEHOLDER} entries than times in the descriptor before them")
            continue
        if owed:
            raise InputError(f"a descriptor has {owed} times more than entries that follow it")
        entry = _descriptor(rest, mode) if mode else MediaEntry(value, kind)
        owed = len(entry.times or [0]) - 1
        entries.append(entry)
    if owed:
        raise InputError(f"a descriptor has {owed} times more than entries that follow it")
    return entries


def _descriptor(text: str, mode: str) -> MediaEntry:
    if not text.startswith(INFO):
        raise InputError(f"the entry {mode}{text[:40]} is neither {INFO} with a descriptor nor {PLACEHOLDER}")
    try:
        values = json.loads(text[len(INFO) :])
    except (ValueError, RecursionError) as error:
        raise InputError(f"the descriptor behind {mode}{INFO} is not JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("video_path"), str):
        raise InputError(f"the descriptor behind {mode}{INFO} has no video_path")
    marks = values.get("time_info")
    if not isinstance(marks, list) or not marks:
        raise InputError(f"the descriptor behind {mode}{INFO} has no list time_info")
    if mode == EVENTS:
        if not all(isinstance(m, dict) and "end" in m for m in marks):
            raise InputError(f"each entry of time_info behind {mode} must be an object with an end")
        return MediaEntry(values["video_path"], "video", "per_event", [seconds(m["end"]) for m in marks])
    return MediaEntry(values["video_path"], "video", "per_frame", [seconds(m) for m in marks])


def seconds(value: Any) -> float:
    """`SS`, `MM:SS`, `HH:MM:SS` (the last part may have decimals) or a number, in seconds.

    Raises:
        InputError: anything else.
    """
    total = 0.0
    try:
        if isinstance(value, bool):
            raise ValueError
        parts = [value] if isinstance(value, int | float) else str(value).split(":")
        for part in parts:
            total = total * 60 + float(part)
    except (ValueError, OverflowError):
        total = -1.0
    if not 0 <= total < math.inf:
        raise InputError(f"time {value!r:.40} is not seconds or MM:SS")
    return total
