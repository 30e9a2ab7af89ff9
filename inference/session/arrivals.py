"""What reaches a session, and when: frames, prompts and controls, each with its stream time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from model.errors import InputError

CONTROLS = ("stop", "reset")
"""stop: the answer that is being said is closed. reset: the session forgets everything and begins anew."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A frame, a prompt or a control at stream time `t` seconds; exactly one of the three is set."""

    t: float
    frame: torch.Tensor | None = None
    """uint8 [3, S, S], fitted to the checkpoint's image size."""
    prompt: str | None = None
    control: str | None = None
    """One of `CONTROLS`."""

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.frame, self.prompt, self.control)) != 1:
            raise InputError(f"an arrival at {self.t} s must be one of a frame, a prompt and a control")
        if self.frame is None and not math.isfinite(self.t):  # a frame's time is for the queue to judge
            raise InputError(f"{self.prompt or self.control!r} comes at {self.t} s; its time must be finite")
        if self.control is not None and self.control not in CONTROLS:
            raise InputError(f"control is {self.control!r}; use one of {', '.join(CONTROLS)}")


def merge(*schedules: Iterable[Arrival]) -> Iterator[Arrival]:
    """Several schedules as one, ordered by time; at equal times the earlier argument comes first. Stays lazy."""
    return heapq.merge(*schedules, key=lambda arrival: arrival.t)
