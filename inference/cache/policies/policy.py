"""A session's whole policy: frames, text, and how far positions may go."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.cache.policies.full import Full
from inference.cache.policies.operations import CrossPolicy
from inference.cache.policies.text import TextWindow
from model.errors import InputError


@dataclass(frozen=True)
class PageBounds:
    """The most that one session can ever hold."""

    row_pages: int
    frame_pages: int


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """What one session keeps. The defaults keep everything.

    Attributes:
        cross: of the frames.
        text: of the rows; None keeps all.
        position_limit: rotary positions stay below it: before the next step could pass it, what is kept is numbered
            anew without gaps. None: positions grow for ever. Needs a text window.
        step_rows: rows of the largest step that the limits allow for.
        step_frames: frames of the largest step.
    """

    cross: CrossPolicy = field(default_factory=Full)
    text: TextWindow | None = None
    position_limit: int | None = None
    step_rows: int = 256
    step_frames: int = 8

    def __post_init__(self) -> None:
        for name in ("step_rows", "step_frames"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.position_limit is not None and self.text is None:
            raise InputError(
                f"position_limit is {self.position_limit} but no text is ever forgotten; give a text window too (--text_window)"
            )

    @property
    def needs_raw_keys(self) -> bool:
        """Whether the pools must keep unrotated keys."""
        return self.cross.needs_raw_keys or self.position_limit is not None

    @property
    def renumber_at(self) -> int | None:
        """Positions are numbered anew when the next one would be this or more."""
        return None if self.position_limit is None else self.position_limit - self.step_rows

    def check(self, page_rows: int, tokens_per_frame: int) -> None:
        """Refuse limits that cannot be kept.

        Raises:
            InputError: what is kept needs more positions than `position_limit` allows.
        """
        if self.position_limit is None or self.text is None:
            return
        frames = self.cross.most_pages(tokens_per_frame, self.step_frames)
        if frames is None:
            raise InputError("position_limit needs a policy that bounds the frames; choose another --cross_policy than full")
        least = self.text.most_rows(page_rows, self.step_rows) + frames + self.step_rows
        if self.position_limit < least:
            raise InputError(
                f"position_limit is {self.position_limit}, but what the policy keeps may take {least} positions; "
                "raise it or make the windows smaller"
            )

    def bounds(self, page_rows: int, tokens_per_frame: int, *, max_rows: int, max_frames: int) -> PageBounds:
        """Pages that a session of at most `max_rows` rows and `max_frames` frames can hold.

        Args:
            page_rows: rows of a page of the self pool.
            tokens_per_frame: rows of a page of the cross pool.
            max_rows: rows of the whole session, prompt and reply; counts where nothing bounds them.
            max_frames: frames of the whole session; the same.
        """
        rows = max_rows if self.text is None else min(max_rows, self.text.most_rows(page_rows, self.step_rows))
        most = self.cross.most_pages(tokens_per_frame, self.step_frames)
        frames = max_frames if most is None else min(max_frames, most)
        return PageBounds(-(-rows // page_rows), frames)
