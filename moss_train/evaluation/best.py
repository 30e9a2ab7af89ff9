"""The file `best` of a run folder: which checkpoint did best in an evaluation."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moss_train.checkpoint.description import BEST, DESCRIPTION, step_name, write_atomically
from moss_train.config.evaluation import EvaluationConfig
from moss_train.feed.agreement import CommonError
from moss_train.monitors.base import Monitor, SaveEvent

STREAMING = "eval_streaming_"
"""Begins the names that a streaming evaluation gives; one that failed gives none of them."""


def look_up(record: dict[str, Any], name: str) -> float | None:
    """A figure of a record; `eval_dataset_loss.videos` looks into a group."""
    value: Any = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


class BestCheckpoint(Monitor):
    """Asks for a checkpoint where an evaluation was better than all before, and names it once it is published.

    The state before the first step has no checkpoint and does not compete.

    Args:
        settings: which figure, and whether small is good.
        run_dir: the run folder.
        writes: whether this rank writes the file.
        from_first: gives all ranks what rank 0 gives.
    """

    name = "best"
    every_rank = True

    def __init__(
        self, settings: EvaluationConfig, run_dir: Path, writes: bool, from_first: Callable[[Any], Any] = lambda value: value
    ) -> None:
        assert settings.best is not None
        self._figure, self._small, self._run_dir, self._writes = settings.best, settings.best_is_small, run_dir, writes
        self._from_first = from_first
        self._best: tuple[float, int] | None = None  # value and step, of a checkpoint that is there
        self._candidate: tuple[float, int] | None = None  # of one that is not published yet
        self._earlier: tuple[float, int] | None = None  # the candidate before, still being written, or tried again at the end
        self._began_at = -1

    def evaluated(self, record: dict[str, Any]) -> None:
        value = look_up(record, self._figure)
        if value is None:
            self._check_missing(record)
        if value is None or math.isnan(value) or record["step"] == 0:
            return
        rival = self._candidate or self._best
        if rival is None or (value < rival[0] if self._small else value > rival[0]):
            self._earlier, self._candidate = self._candidate, (value, record["step"])
            if record["step"] == self._began_at:  # an evaluation that the earlier process did not come to
                self._settle()

    def _check_missing(self, record: dict[str, Any]) -> None:
        """A name that no evaluation gives would keep the run from ever having a best checkpoint."""
        streaming = any(name.startswith(STREAMING) for name in record)
        if streaming != self._figure.startswith(STREAMING) or f"{STREAMING}failed" in record:
            return  # of another evaluation
        names = [name for name in record if name.startswith("eval_") and look_up(record, name) is not None]
        names += [f"{name}.{part}" for name, group in record.items() if isinstance(group, dict) for part in group]
        raise CommonError(f"evaluation.best is {self._figure}, which the evaluation does not give; use one of {', '.join(names)}")

    def wants_save(self, step: int) -> bool:
        return self._candidate is not None and self._candidate[1] == step

    def saved(self, event: SaveEvent) -> None:
        if self._earlier is not None and (event.step, event.kind) == (self._earlier[1], "published"):
            self._best, self._earlier = self._earlier, None
            self._write()
        if self._candidate is None or event.step != self._candidate[1]:
            return
        if event.kind == "published":
            self._best, self._candidate = self._candidate, None
            self._write()
        elif event.kind == "failed":
            self._earlier, self._candidate = self._candidate, None

    def started(self, step: int, steps: int) -> None:
        self._began_at = step
        if self._best is not None and not self._from_first(self._is_there(self._best[1])):
            self._best = None  # a later one took its place and retention its files: it competes no more
        if self._candidate is not None:  # its checkpoint was being written when the state was taken
            self._settle()
        self._write()

    def state_dict(self) -> dict[str, Any]:
        return {"figure": self._figure, "small": self._small, "best": self._best, "candidate": self._candidate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (state["figure"], state["small"]) == (self._figure, self._small):
            self._best = None if state["best"] is None else (state["best"][0], state["best"][1])
            self._candidate = None if state["candidate"] is None else (state["candidate"][0], state["candidate"][1])

    def _settle(self) -> None:
        """The candidate is the best if its checkpoint is there already."""
        assert self._candidate is not None
        if self._from_first(self._is_there(self._candidate[1])):
            self._best = self._candidate
            self._write()
        self._candidate = None

    def _is_there(self, step: int) -> bool:
        return (self._run_dir / "checkpoints" / step_name(step) / DESCRIPTION).is_file()

    def _write(self) -> None:
        """The file says what this monitor knows; one of steps that a continued run takes again is removed."""
        if not self._writes:
            return
        path = self._run_dir / BEST
        try:
            if self._best is not None and self._is_there(self._best[1]):
                write_atomically(path, step_name(self._best[1]))
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            print(f"moss: {path} cannot be written ({error.strerror or error}); it may name an older checkpoint", file=sys.stderr)
