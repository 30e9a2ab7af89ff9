"""What reaches a session, and when: frames, prompts and controls, each with its stream time."""

from __future__ import annotations

import heapq
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
        if self.control is not None and self.control not in CONTROLS:
            raise InputError(f"control is {self.control!r}; use one of {', '.join(CONTROLS)}")


def merge(*schedules: Iterable[Arrival]) -> Iterator[Arrival]:
    """Several schedules as one, ordered by time; at equal times the earlier argument comes first. Stays lazy."""
    return heapq.merge(*schedules, key=lambda arrival: arrival.t)
