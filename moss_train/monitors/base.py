"""The calls that a trainer makes on every monitor."""

from __future__ import annotations

from typing import Any


class Monitor:
    """Does nothing; a monitor overrides what it needs. Records are plain JSON values and equal on all ranks."""

    def started(self, step: int, steps: int) -> None:
        """Before the first update of this process.

        Args:
            step: updates done by earlier processes of the run.
            steps: updates of the whole run.
        """

    def stepped(self, record: dict[str, Any]) -> None:
        """After an update; `record["step"]` counts from 1."""

    def evaluated(self, record: dict[str, Any]) -> None:
        """After a held-out evaluation."""

    def finished(self) -> None:
        """At the end, also when the run ends with an error."""
