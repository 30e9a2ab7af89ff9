"""What a policy may ask for, and what it decides on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inference.cache.frame_page import FramePage


@dataclass(frozen=True)
class DropFrames:
    """Forget `count` pages from number `begin` on."""

    begin: int
    count: int


@dataclass(frozen=True)
class PoolFrames:
    """Pool a batch of as many frames as a frame has tokens, from page `begin` on."""

    begin: int


@dataclass(frozen=True)
class KeepClassTokens:
    """Of the batch of pooled frames from page `begin` on, keep the class tokens."""

    begin: int


@dataclass(frozen=True)
class PutAway:
    """Move `count` frames from page `begin` on into the host's memory; it keeps the newest `capacity`."""

    begin: int
    count: int
    capacity: int


Operation = DropFrames | PoolFrames | KeepClassTokens | PutAway


@dataclass(frozen=True)
class Recall:
    """At a prompt: fetch the `count` archived frames most like the newest one, before page `begin`."""

    begin: int
    count: int


class CrossPolicy(Protocol):
    """What is kept of the frames."""

    @property
    def needs_raw_keys(self) -> bool:
        """Whether keys are made anew."""
        ...

    def decide(self, pages: Sequence[FramePage], tokens_per_frame: int) -> Operation | None:
        """The next thing to do to what is kept, oldest page first; None when nothing is left to do."""
        ...

    def recall(self, pages: Sequence[FramePage]) -> Recall | None:
        """What a prompt brings back."""
        ...

    def most_pages(self, tokens_per_frame: int, step_frames: int) -> int | None:
        """Pages held at most, in the midst of a step that brings `step_frames` frames too; None: no bound."""
        ...

    def spell(self) -> str:
        """As it is written on a command line."""
        ...


class KeepsNothingBack:
    """A policy that never puts frames away."""

    needs_raw_keys = False

    def recall(self, pages: Sequence[FramePage]) -> Recall | None:
        """Nothing comes back."""
        return None
