"""What tests of checkpoints look at."""

from __future__ import annotations

from pathlib import Path


def names_in(run: Path) -> list[str]:
    """Everything in the folder of checkpoints, hidden or not."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())
