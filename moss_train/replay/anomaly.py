"""A folder that a guard wrote about an update, shown as a replayed step: the run's own tensors, nothing read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from model.errors import InputError
from moss_train.guards.anomaly import FOLDER, SUMMARY, read_anomaly
from moss_train.replay.check import Checks, compare_with_log
from moss_train.replay.run import ReplayedStep, open_run


def is_anomaly(folder: Path) -> bool:
    """Whether a guard wrote the folder: it lies in `anomalies` of a run."""
    return folder.resolve().parent.name == FOLDER


def read_anomaly_step(folder: Path, overrides: Sequence[str], only: Sequence[int]) -> ReplayedStep:
    """The global batch that the guard kept.

    Args:
        folder: `RUN/anomalies/step_00000123`.
        only: numbers in the global batch; empty takes all.

    Raises:
        InputError: the folder is damaged, or does not lie in a run folder.
    """
    run, config, tokenizer = open_run(folder.resolve().parent.parent, overrides)
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
        step = int(summary["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / SUMMARY} cannot be read ({error}); give step=N of the run folder instead") from None
    batches = dict(enumerate(read_anomaly(folder)))
    for number in only:
        if number not in batches:
            raise InputError(f"--micro-batch {number}: {folder} holds the micro-batches {', '.join(map(str, batches))}")
    chosen = {number: batches[number] for number in only} if only else batches
    found = ReplayedStep(
        step=step, folder=run, config=config, tokenizer=tokenizer, batches=chosen, size=len(batches), readers={},
        source=f"kept by a guard in {folder.name}", record=None, checks=Checks(),
    )  # fmt: skip
    found.checks.notes.append(f"{summary.get('reason', 'left out')}; {folder / SUMMARY} has its figures")
    compare_with_log(found.checks, run.path, step, chosen)
    return found
