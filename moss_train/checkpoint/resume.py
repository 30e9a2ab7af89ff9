"""Which checkpoint a run continues from: decided by rank 0, looked at by all, the same on all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist

from model.errors import InputError
from moss_train.checkpoint.common import from_first, in_common, sentence
from moss_train.checkpoint.description import (
    CheckpointDescription,
    DamagedError,
    find_checkpoint,
    newest_checkpoint,
    published_checkpoints,
    read_description,
    step_of,
)
from moss_train.checkpoint.integrity import check_checkpoint
from moss_train.checkpoint.retention import clear_leftovers
from moss_train.feed.agreement import CommonError

DAMAGED = ".damaged"
"""Ending of a checkpoint that was passed over."""


def checkpoint_to_continue(
    run_dir: Path, resume: str, verify: str, check: Callable[[CheckpointDescription, Path], None], begun_with: str | None = None
) -> Path | None:
    """The checkpoint that `train.resume` means, looked through; None to start from nothing. Every rank calls it.

    Args:
        run_dir: the run folder.
        resume: auto | latest | none, or the path of a checkpoint or of a run folder.
        verify: full | sizes.
        check: refuses a checkpoint that is good but of another kind of run.
        begun_with: `train.resume` of the command that made the run folder. The same path again means to go on.

    Raises:
        InputError: on all ranks: the folder's content and `resume` do not fit, or what is to be continued is damaged.
    """
    first = dist.get_rank() == 0

    def look() -> tuple[list[Path], bool]:
        if not first:
            return [], False
        with suppress(OSError):  # a disk that refuses will be told of when something is saved
            clear_leftovers(run_dir)
        return _candidates(run_dir, resume, begun_with)

    candidates, falls_back = from_first(in_common(look))
    passed_over: list[Path] = []
    reasons = []
    for candidate in candidates:
        refusal = _damage(candidate, verify, check)
        if refusal is None:
            if first:
                _set_aside(passed_over)
            return candidate
        if not falls_back:
            raise CommonError(refusal)
        passed_over.append(candidate)
        reasons.append(refusal)
        if first:
            print(f"moss: warning: {candidate} is passed over: {refusal}", file=sys.stderr, flush=True)
    if passed_over:
        raise CommonError(
            f"run_dir {run_dir} holds no good checkpoint: {reasons[0]}; or choose another run_dir, or move its checkpoints away "
            "to start from nothing"
        )
    return None


def _candidates(run_dir: Path, resume: str, begun_with: str | None) -> tuple[list[Path], bool]:
    """What to look at, in this order, and whether the next one is taken where one is damaged."""
    own = published_checkpoints(run_dir)
    if resume == "auto":
        return own[::-1], True
    if resume == "none":
        if own:
            raise InputError(
                f"run_dir {run_dir} already holds {own[-1].name} and train.resume is none; choose another run_dir or "
                "train.resume=auto"
            )
        return [], False
    if resume == "latest":
        if not own:
            raise InputError(f"run_dir {run_dir} holds no checkpoint and train.resume is latest; use train.resume=auto to start")
        return own[-1:], False
    if own and begun_with == resume:  # the same command again, after it was ended
        return own[::-1], True
    return [_named(Path(resume), run_dir)], False


def _named(path: Path, run_dir: Path) -> Path:
    """The checkpoint that a path means, if nothing newer is in the way."""
    if not path.exists():
        raise InputError(f"train.resume is {str(path)!r}, which does not exist; use auto, latest, none or a checkpoint folder")
    chosen = find_checkpoint(path)
    newest = newest_checkpoint(run_dir)
    if newest is None:
        return chosen
    if chosen.resolve().parent != newest.resolve().parent:
        raise InputError(
            f"run_dir {run_dir} already holds {newest.name} and train.resume is {path}, a checkpoint of another run; choose "
            "another run_dir, or train.resume=auto to continue this one"
        )
    if step_of(newest) > step_of(chosen):
        raise InputError(
            f"run_dir {run_dir} already holds {newest.name}, newer than {chosen.name} that train.resume names; choose another "
            "run_dir to branch off, or remove the newer checkpoints"
        )
    return chosen


def _damage(checkpoint: Path, verify: str, check: Callable[[CheckpointDescription, Path], None]) -> str | None:
    """Why a checkpoint is not good; None where it is. Every rank calls it.

    Raises:
        InputError: it is not for this run.
    """

    def describe() -> str | None:
        if dist.get_rank() != 0:
            return None
        try:
            check(read_description(checkpoint), checkpoint)
        except DamagedError as error:
            return sentence(error)
        return None

    damage = from_first(in_common(describe))
    if damage is not None:
        return damage
    try:
        check_checkpoint(checkpoint, verify)
    except CommonError as error:
        return str(error)
    return None


def _set_aside(checkpoints: list[Path]) -> None:
    """Give damaged checkpoints another name: they neither count as the newest nor take the place of a good one."""
    for checkpoint in checkpoints:
        with suppress(OSError):
            os.replace(checkpoint, checkpoint.with_name(checkpoint.name + DAMAGED))
