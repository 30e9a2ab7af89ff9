"""Which integer seeds belong to which split: disjoint ranges, so that no clip of one split is ever in another."""

from __future__ import annotations

from model.errors import InputError

SPLITS = ("train", "validation", "test")
TASKS = ("dense", "text", "cap", "trk", "qa", "rt", "ask", "stream")
SPLIT_SPAN = 10**9
WORLDS = 10
TASK_SPAN = SPLIT_SPAN // (WORLDS * len(TASKS))
"""Clips that one task of one world may draw."""


def first_seed(split: str, task: str, world: int = 0) -> int:
    """The first of the `TASK_SPAN` seeds that belong to a task of a split in world `world`.

    Raises:
        InputError: unknown split or task, or a world outside 0..9.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
    if task not in TASKS:
        raise InputError(f"task is {task!r}; use one of {', '.join(TASKS)}")
    if not 0 <= world < WORLDS:
        raise InputError(f"world seed is {world}; it must lie within 0..{WORLDS - 1}")
    return SPLITS.index(split) * SPLIT_SPAN + (world * len(TASKS) + TASKS.index(task)) * TASK_SPAN
