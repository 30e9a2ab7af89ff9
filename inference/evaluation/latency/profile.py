"""The file of a latency profile, `moss-latency/1`, and the costs that it gives to a virtual clock."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.evaluation.storage import write_lines
from inference.session.costs import StepSize
from model.errors import InputError

FORMAT = "moss-latency/1"

_SIGNED = ("encode_overhead_seconds",)

Points = list[tuple[int, float]]
"""(size, seconds), sizes growing."""


@dataclass(frozen=True, kw_only=True)
class LatencyProfile:
    """What one machine takes for one model; all times are medians in seconds."""

    encode: Points
    """(frames, from handing them to the idle encoder to their features)"""
    steps: Points
    """(rows fed, from the beginning of a step to its token in the host's hands), without new frames, over `kept_rows` and
    `kept_frames`"""
    speaking_seconds: float
    """Between two tokens of an utterance, the session's own work included."""
    new_frame_seconds: float = 0.0
    """That each new frame adds to a step: its keys and values."""
    kept_rows: int = 0
    kept_frames: int = 0
    row_seconds: float = 0.0
    """That each row which the session holds beyond `kept_rows` adds to a step."""
    frame_seconds: float = 0.0
    """The same of a frame."""
    encode_overhead_seconds: float = 0.0
    """What a session that waits adds to encoding and step, from a frame's arrival on; below 0 where both are quicker there."""
    prompt_seconds: float = 0.0
    """That a prompt takes beyond the step that feeds it: the session wakes, the text is tokenised."""
    encode_speaking_seconds: float = 0.0
    """That the encoding of frames takes longer beside speech without pause."""
    ahead_seconds: float = 0.0
    """Of a step that was launched ahead and is not wanted; 0: none is launched ahead."""
    frames_a_call: int = 8
    encode_on_arrival: bool = True
    """Whether the session gave frames to the encoder when they came."""
    about: dict[str, Any] = field(default_factory=dict)
    """Device, model, dtype, versions, spreads: for people."""

    def step_seconds(self, size: StepSize) -> float:
        """Of a step, its frames encoded."""
        base = self.speaking_seconds if size.speaking else interpolate(self.steps, size.rows)
        kept = self.row_seconds * (size.kept_rows - self.kept_rows) + self.frame_seconds * (size.kept_frames - self.kept_frames)
        return max(0.0, base + kept + self.new_frame_seconds * size.new_frames + self.prompt_seconds * size.prompts)

    def hidden_seconds(self) -> float:
        """What a step of one row takes longer alone than launched ahead: there the host prepares it while the device is busy."""
        return max(0.0, interpolate(self.steps, 1) - self.speaking_seconds) if self.ahead_seconds else 0.0

    def encode_seconds(self, frames: int, speaking: bool = False) -> float:
        """Of one call of the encoder, alone or beside speech without pause, which leaves it a small part of the machine."""
        alone = max(0.0, interpolate(self.encode, frames) + self.encode_overhead_seconds)
        return alone + (self.encode_speaking_seconds if speaking else 0.0)


def interpolate(points: Sequence[tuple[int, float]], size: int) -> float:
    """Linear between the two nearest measured sizes, and beyond the last along the line of the last two, but never falling."""
    if len(points) == 1 or size <= points[0][0]:
        return points[0][1]
    place = min(max(1, bisect.bisect_left(points, (size, -math.inf))), len(points) - 1)
    (low, before), (high, after) = points[place - 1], points[place]
    if size > high:
        return after + max(0.0, after - before) * (size - high) / (high - low)
    return before + (after - before) * (size - low) / (high - low)


def save_profile(path: Path, profile: LatencyProfile) -> None:
    """Write the file, atomically."""
    write_lines(path, [json.dumps({"format": FORMAT, **dataclasses.asdict(profile)}, indent=1)])


def load_profile(path: str | Path) -> LatencyProfile:
    """Read and check a file.

    Raises:
        InputError: it is missing, no such file, or a field has a bad value; the message names the field.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a latency profile ({error}); measure one with `moss bench latency`"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} does not say format {FORMAT!r}; give a file that `moss bench latency` wrote")
    values: dict[str, Any] = {}
    fields = {f.name: f for f in dataclasses.fields(LatencyProfile)}
    for name, value in content.items():
        if name == "format":
            continue
        if name not in fields:
            raise InputError(f"{path}: field {name} is not known; use the version that wrote it")
        values[name] = _checked(f"{path}: field {name}", str(fields[name].type), value, signed=name in _SIGNED)
    for name in ("encode", "steps", "speaking_seconds"):
        if name not in values:
            raise InputError(f"{path}: field {name} is missing; measure the profile again")
    if values.get("frames_a_call") == 0:
        raise InputError(f"{path}: field frames_a_call is 0; it must be at least 1")
    if values["speaking_seconds"] == 0:  # a stream without a pace would not go on while something is said
        raise InputError(f"{path}: field speaking_seconds is 0.0; it must be above 0")
    return LatencyProfile(**values)


def _checked(where: str, kind: str, value: Any, *, signed: bool = False) -> Any:
    if kind == "Points":
        return _points(where, value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind.startswith("dict") and isinstance(value, dict):
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18 and (signed or value >= 0)
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and value == int(value):
        return int(value)
    raise InputError(f"{where} is {value!r}; it must be a {kind}, not negative")


def _points(where: str, value: Any) -> Points:
    fits = isinstance(value, list) and value and all(isinstance(point, list) and len(point) == 2 for point in value)
    if not fits:
        raise InputError(f"{where} is {value!r}; it must be a list of [size, seconds]")
    points = [(_checked(f"{where} size", "int", size), _checked(f"{where} seconds", "float", seconds)) for size, seconds in value]
    if any(a >= b for (a, _), (b, _) in itertools.pairwise(points)):
        raise InputError(f"{where} has the sizes {[size for size, _ in points]}; they must grow")
    return points
