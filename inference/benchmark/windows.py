"""What the sessions of a measurement keep, and the pages that this takes."""

from __future__ import annotations

from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.text import TextWindow
from inference.cache.policies.window import Window
from inference.cache.store import ROWS_PER_PAGE

STEP_ROWS, STEP_FRAMES = 8, 2
"""Of the largest step once a session runs: a token and a frame, or two where it lags."""


def newest(frames: int, rows: int, position_limit: int | None = None) -> CachePolicy:
    """The newest frames and rows stay.

    Args:
        frames: that stay.
        rows: that stay at least; older ones go page by page.
        position_limit: positions are numbered anew below it; None: they grow.
    """
    return CachePolicy(
        cross=Window(frames),
        text=TextWindow(0, rows),
        position_limit=position_limit,
        step_rows=STEP_ROWS,
        step_frames=STEP_FRAMES,
    )


def rows_needed(rows: int) -> int:
    """Text positions that one session of such a window takes in whole pages."""
    return rows + STEP_ROWS + 2 * ROWS_PER_PAGE
