"""Exit codes of a pod, from how the run ended (docs/guards.md).

Kubernetes takes 0 for complete. Training that was told to end and has saved also ends with 0, on all nodes when one of them is
told; a pod then says `EXIT_AGAIN` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moss_train.guards.ending import FAILED, FINISHED, NAME, TOLD, Ending, read_ending

EXIT_BAD_INPUT = 2
EXIT_AGAIN = 75
"""Saved and not at its end: start the pod again, and count no failure. The EX_TEMPFAIL of sysexits.h."""
EXIT_RETRY = 138
"""Of a PyTorchJob, whose operator makes a pod anew for codes of 128 and above: any end that is worth another start. Its older
versions leave this one to users."""


@dataclass(frozen=True)
class Stamp:
    """Tells one writing of `RUN/ending.json` from another."""

    run_dir: Path
    before: tuple[int, int] | None

    @classmethod
    def of(cls, run_dir: Path) -> Stamp:
        """Before a start."""
        return cls(run_dir, _identity(run_dir))

    @property
    def ending(self) -> Ending | None:
        """How this start ended; None while nothing has said so."""
        return read_ending(self.run_dir) if _identity(self.run_dir) not in (None, self.before) else None


def _identity(run_dir: Path) -> tuple[int, int] | None:
    try:
        status = (run_dir / NAME).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def nothing_left(ending: Ending | None, steps: int) -> bool:
    """Whether the run has done all its steps, so that a pod that is started again has nothing to do."""
    return ending is not None and ending.outcome == FINISHED and ending.step is not None and ending.step >= steps


def exit_code(code: int, told: bool, ending: Ending | None) -> int:
    """What the pod ends with.

    Args:
        code: of torchrun on this node.
        told: whether this pod was told to end.
        ending: how the run ended, as its ranks say; None where none could.
    """
    if ending is not None:
        if ending.complete:
            return 0
        if ending.outcome == TOLD:
            return EXIT_AGAIN
        if ending.outcome == FAILED and ending.code:
            return ending.code
    if told:
        return EXIT_AGAIN  # before training began, or its last checkpoint was not written in time
    if code == 0:
        return 1  # no rank could say that the run is at its end
    return 128 - code if code < 0 else code
