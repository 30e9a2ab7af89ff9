"""What the encoder may leave out: `exact`, or one of the named fast modes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class VisionMode:
    """Departures from the exact tower. Each changes the features; `moss verify vision` says by how much."""

    name: str = "exact"
    valid_rows: bool = False
    """Patches that are nothing but padding are not computed one by one: one token stands for those of each pooled square."""
    repeat_keys: bool = True
    """With `valid_rows`: such a token is attended to as often as the patches that it stands for were."""
    fp8: bool = False
    """Products of the tower's layers in 8-bit floating point. Patch embedding and projector keep their dtype."""
    near_duplicate: float | None = None
    """Frames whose thumbnail differs by fewer levels (of 255) than this from the last encoded one take its features."""

    def __post_init__(self) -> None:
        if self.near_duplicate is not None and not 0 < self.near_duplicate <= 255:
            raise InputError(f"near_duplicate is {self.near_duplicate}; give levels above 0 and at most 255, or leave it out")


VISION_MODES = {
    "exact": VisionMode(),
    "valid_rows": VisionMode(name="valid_rows", valid_rows=True),
    "fp8": VisionMode(name="fp8", fp8=True),
    "fast": VisionMode(name="fast", valid_rows=True, fp8=True),
}


def vision_mode(name: str, near_duplicate: float | None = None) -> VisionMode:
    """The mode of a name.

    Args:
        near_duplicate: levels under which a frame counts as the one before; None encodes every frame.

    Raises:
        InputError: an unknown name.
    """
    if name not in VISION_MODES:
        raise InputError(f"vision mode {name!r} is not known; use one of {', '.join(VISION_MODES)}")
    return dataclasses.replace(VISION_MODES[name], near_duplicate=near_duplicate)
