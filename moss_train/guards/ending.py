"""`RUN/ending.json`: how a run last ended, for whoever decides whether to start it again. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

NAME = "ending.json"
FINISHED, DATA_ENDED, TOLD, FAILED = "finished", "data ended", "told to end", "failed"


@dataclass(frozen=True)
class Ending:
    """The end of one start of a run."""

    outcome: str
    """finished | data ended | told to end | failed"""
    code: int
    """Exit code of the ranks (docs/guards.md)."""
    sentence: str = ""
    """Why, where it failed."""
    step: int | None = None
    """Steps done, where it did not fail."""
    ranks: tuple[int, ...] = ()
    """Ranks that were lost or did not answer."""
    hosts: tuple[str, ...] = ()
    """Of those ranks, as far as known: as many, in their order, or none."""
    author: int = -1
    """The rank that found the reason in itself; -1 where none did."""
    host: str = ""
    """Of that rank, or of the one that speaks."""
    world_size: int = 1

    @property
    def complete(self) -> bool:
        """Whether starting the run again would change nothing."""
        return self.outcome in (FINISHED, DATA_ENDED)


def write_ending(run_dir: str | Path, ending: Ending) -> None:
    """Replace the file; a folder that cannot be written is no reason to end otherwise."""
    path = Path(run_dir) / NAME
    temporary = path.with_name(f".{NAME}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(dataclasses.asdict(ending)) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        return


def read_ending(run_dir: str | Path) -> Ending | None:
    """How the run last ended; None where it has not, or where nothing could say so (the power was gone, say)."""
    try:
        values = json.loads((Path(run_dir) / NAME).read_text(encoding="utf-8"))
        return Ending(**values | {"ranks": tuple(values["ranks"]), "hosts": tuple(values["hosts"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def ending_since(run_dir: str | Path, moment: float) -> bool:
    """Whether the file was written after a moment, in seconds since 1970."""
    try:
        return (Path(run_dir) / NAME).stat().st_mtime > moment
    except OSError:
        return False


def forget_ending(run_dir: str | Path) -> None:
    """Before a start: what is there afterwards is of this start."""
    (Path(run_dir) / NAME).unlink(missing_ok=True)
