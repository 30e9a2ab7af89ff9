"""Keep every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.cache.frame_page import FramePage
from inference.cache.policies.operations import KeepsNothingBack, Operation


@dataclass(frozen=True)
class Full(KeepsNothingBack):
    """Every frame stays."""

    def decide(self, pages: Sequence[FramePage], tokens_per_frame: int) -> Operation | None:
        """Nothing to do."""
        return None

    def most_pages(self, tokens_per_frame: int, step_frames: int) -> int | None:
        """No bound."""
        return None

    def spell(self) -> str:
        """As it is written on a command line."""
        return "full"
