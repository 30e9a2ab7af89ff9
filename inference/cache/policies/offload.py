"""Old frames lie in the host's memory; those most like the present come back for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.cache.frame_page import FramePage, PageKind
from inference.cache.policies.operations import DropFrames, Operation, PutAway, Recall
from model.errors import InputError


@dataclass(frozen=True)
class Offload:
    """The newest `window` frames in the pool, `capacity` older ones in the host's memory, `recalled` of them back at a prompt."""

    window: int
    recalled: int
    capacity: int = 3600
    needs_raw_keys = False

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("recalled", self.recalled), ("capacity", self.capacity)):
            if value < 1:
                raise InputError(f"{name} of the policy offload is {value} frames; it must be at least 1")

    def decide(self, pages: Sequence[FramePage], tokens_per_frame: int) -> Operation | None:
        """Put away what has left the window; fetched frames stand before it until the next prompt."""
        fetched = _fetched(pages)
        excess = len(pages) - fetched - self.window
        return PutAway(fetched, excess, self.capacity) if excess > 0 else None

    def forget(self, pages: Sequence[FramePage]) -> Operation | None:
        """What the last prompt brought back goes before the next one's choice."""
        fetched = _fetched(pages)
        return DropFrames(0, fetched) if fetched else None

    def recall(self, pages: Sequence[FramePage]) -> Recall | None:
        """Fetch for a prompt, in front of the window."""
        return Recall(0, self.recalled) if pages else None

    def most_pages(self, tokens_per_frame: int, step_frames: int) -> int | None:
        """Window, fetched frames, and the frames of a step before it is trimmed."""
        return self.window + self.recalled + step_frames

    def spell(self) -> str:
        """As it is written on a command line."""
        return f"offload:{self.window}:{self.recalled}:{self.capacity}"


def _fetched(pages: Sequence[FramePage]) -> int:
    return sum(page.kind is PageKind.RECALLED for page in pages)
