"""Which checkpoints stay, how old ones go, and what an ended process has left behind. Imports no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from moss_train.checkpoint.description import BEST, DESCRIPTION, published_checkpoints, step_of

TEMPORARY = ".tmp"
REPLACED = ".replaced.tmp"
"""Ending of a checkpoint that makes room for another one of the same step, until that one is in its place."""


def kept(steps: Iterable[int], keep_last: int, keep_every: int = 0, protected: Iterable[int] = ()) -> set[int]:
    """The steps whose checkpoints stay.

    Args:
        steps: of all checkpoints.
        keep_last: so many of the newest; at least one.
        keep_every: multiples of it stay for ever; 0 keeps none for that.
        protected: stay in any case.
    """
    ordered = sorted(steps)
    stay = set(ordered[-max(1, keep_last) :]) | (set(protected) & set(ordered))
    return stay | {step for step in ordered if keep_every and step % keep_every == 0}


def remove_old(run_dir: Path, keep_last: int, keep_every: int = 0, protected: Iterable[str] = ()) -> list[str]:
    """Remove the checkpoints that need not stay; what the file `best` names stays.

    Args:
        run_dir: the run folder.
        keep_last: see `kept`.
        keep_every: see `kept`.
        protected: names of folders that stay.

    Returns:
        Names of those removed, oldest first.

    Raises:
        OSError: one cannot be removed.
    """
    folders = {step_of(folder): folder for folder in published_checkpoints(run_dir)}
    names = {*protected, named_by(run_dir / BEST)}
    stay = kept(folders, keep_last, keep_every, [step for step, folder in folders.items() if folder.name in names])
    removed = []
    for step, folder in sorted(folders.items()):
        if step not in stay:
            remove_checkpoint(folder)
            removed.append(folder.name)
    return removed


def named_by(pointer: Path) -> str | None:
    """What a file like `latest` or `best` names; None where it is not there or cannot be read."""
    try:
        return pointer.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint so that no part of it is ever taken for one.

    Raises:
        OSError: it cannot be removed.
    """
    going = folder.with_name(folder.name + TEMPORARY)
    shutil.rmtree(going, ignore_errors=True)
    os.replace(folder, going)
    shutil.rmtree(going)


def clear_leftovers(run_dir: Path) -> list[str]:
    """Remove what a process that was ended in the middle left of unpublished checkpoints; returns the names.

    A checkpoint that was being replaced when the process ended, and has no successor yet, gets its name back.

    Raises:
        OSError: something cannot be removed.
    """
    cleared = []
    for path in sorted((run_dir / "checkpoints").glob(f"step_*{TEMPORARY}")):
        original = path.with_name(path.name.removesuffix(REPLACED))
        if path.name.endswith(REPLACED) and not original.exists() and (path / DESCRIPTION).is_file():
            os.replace(path, original)
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        cleared.append(path.name)
    return cleared
