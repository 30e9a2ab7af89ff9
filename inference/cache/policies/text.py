"""What is kept of the rows."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import InputError


@dataclass(frozen=True)
class TextWindow:
    """The first `sink` rows of the session and at least the newest `window`; what lies between goes page by page."""

    sink: int
    window: int

    def __post_init__(self) -> None:
        if self.sink < 0 or self.window < 1:
            raise InputError(f"the text window is {self.sink}:{self.window}; give SINK of 0 or more and WINDOW of 1 or more rows")

    def excess_pages(self, length: int, page_rows: int) -> tuple[int, int]:
        """(first page, pages) to drop of a session of `length` rows."""
        sink_pages = -(-self.sink // page_rows)
        return sink_pages, max(0, (length - sink_pages * page_rows - self.window) // page_rows)

    def most_rows(self, page_rows: int, step_rows: int) -> int:
        """Rows held at most, in the midst of a step of `step_rows` rows."""
        return -(-self.sink // page_rows) * page_rows + self.window + page_rows - 1 + step_rows
