"""What the frames of one source have in common."""

from __future__ import annotations

from dataclasses import dataclass

from inference.vision.duplicates import DuplicateFilter
from inference.vision.region import Region
from inference.vision.ticket import Job


@dataclass
class Clip:
    """State of one session or file; `FrameEncoder.new_clip` makes it."""

    region: Region | None
    """That holds a picture; None until the first frame says so. Grows, never shrinks."""
    detect: bool
    """Look at the frames for it; False where the source's size was given."""
    duplicates: DuplicateFilter | None = None
    last: Job | None = None
    """The last frame that was encoded, for near-duplicates."""
