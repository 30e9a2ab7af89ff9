"""From where in its data a run is read again to reach a step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.checkpoint.description import published_checkpoints, read_description
from moss_train.checkpoint.loader_state import merged_loader_state
from moss_train.run_folder import RunFolder


@dataclass(frozen=True)
class Place:
    """Where reading begins."""

    state: dict[str, Any] | None
    """Merged state of the readers; None is the beginning of the data."""
    checkpoint: Path | None
    first: int
    """Number in the run of the wanted step's first micro-batch."""
    passed_by: list[str]
    """Sentences about checkpoints that were of no use."""


def find_place(folder: RunFolder, step: int, batch_size: int) -> Place:
    """The nearest checkpoint before a step of which the place in the data can be read.

    Args:
        step: updates are counted from 1.
        batch_size: micro-batches in a global batch.

    Raises:
        InputError: the run changed the size of its global batch after the place that is left to begin at.
    """
    passed_by: list[str] = []
    for checkpoint in reversed(published_checkpoints(folder.path)):
        try:
            description = read_description(checkpoint)
            if description.step > step - 1 or description.weights_only:
                continue
            state = merged_loader_state(checkpoint, description.data_size)
        except InputError as error:
            passed_by.append(str(error))
            continue
        if state is not None:
            first = state["micro_batches"] + (step - 1 - description.step) * batch_size
            return Place(state, checkpoint, first, passed_by)
    _check_size(folder, batch_size)
    return Place(None, None, (step - 1) * batch_size, passed_by)


def _check_size(folder: RunFolder, batch_size: int) -> None:
    """From the beginning on, steps can be counted only if all of them were of one size."""
    for checkpoint in published_checkpoints(folder.path):
        try:
            description = read_description(checkpoint)
            state = None if description.weights_only else merged_loader_state(checkpoint, description.data_size)
        except InputError:
            continue
        if state is not None and state["micro_batches"] != description.step * batch_size and not state["ended"]:
            raise InputError(
                f"{checkpoint} was written behind {state['micro_batches']} micro-batches, not behind {description.step} steps of "
                f"train.global_batch_size = {batch_size}: the size changed during the run; replay a step behind that checkpoint"
            )
