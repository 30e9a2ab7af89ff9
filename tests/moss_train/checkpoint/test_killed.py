"""A process that is killed at any file operation of a checkpoint leaves the checkpoint before, and the next start goes on."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from model.conversion.tensor_file import TensorFileWriter
from moss_train.checkpoint.description import CheckpointDescription, newest_checkpoint, step_name
from moss_train.checkpoint.integrity import check_share
from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.publish import publish, temporary_folder
from moss_train.checkpoint.rank_files import RankFiles
from moss_train.checkpoint.retention import clear_leftovers, remove_old
from moss_train.checkpoint.tensors import CheckpointTensors
from tests.moss_train.checkpoint.folders import names_in

_EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir")


def _save(run: Path, step: int) -> None:
    """What two ranks and the publishing thread do, one after the other."""
    values = torch.full((8, 4), float(step))
    folder = temporary_folder(run, step, 1)
    for rank in range(2):
        own = values[4 * rank : 4 * rank + 4].reshape(-1)
        pieces = [
            Piece("w", (8, 4), (4 * rank, 0), (4, 4), own),
            Piece("optimizer.exp_avg.w", (8, 4), (4 * rank, 0), (4, 4), own),
        ]
        RankFiles(rank, pieces, small={f"random_{rank:05d}.pt": step}).write(folder)
    publish(run, folder, CheckpointDescription(step=step, model={}, world_size=2))
    remove_old(run, 2, protected=[step_name(step)])


def _killed_at(count: int, run: Path, step: int) -> bool:
    """Save in a process that ends itself at its `count`-th operation; whether it got that far."""
    child = os.fork()
    if child == 0:
        left = count

        def operation(*_: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)

        def before(function: Any) -> Any:
            return lambda *arguments: (operation(), function(*arguments))[1]

        os.fsync = before(os.fsync)
        stock: Any = TensorFileWriter
        stock._write = before(stock._write)
        sys.addaudithook(lambda event, arguments: operation() if event in _EVENTS and str(run) in str(arguments) else None)
        _save(run, step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9


def _good(folder: Path) -> float:
    """The value that a checkpoint holds everywhere."""
    check_share(folder)
    tensors = CheckpointTensors(folder)
    found = torch.stack([tensors.read_rows(key, 0, 8) for key in sorted(tensors.keys())])
    assert found.unique().numel() == 1
    return float(found[0, 0, 0])


def _every_kill(root: Path, first: tuple[int, ...], step: int) -> int:
    for earlier in first:
        _save(root / "before", earlier)
    count = 0
    while True:
        run = shutil.copytree(root / "before", root / f"run_{count}")
        killed = _killed_at(count, run, step)
        clear_leftovers(run)
        newest = newest_checkpoint(run)
        assert newest is not None and newest.name in (step_name(first[-1]), step_name(step)), count
        assert _good(newest) == int(newest.name[-8:])
        assert all(_good(folder) > 0 for folder in (run / "checkpoints").iterdir())  # nothing else is left
        _save(run, step)
        assert names_in(run)[-1] == step_name(step) and len(names_in(run)) == 2
        assert (run / "latest").read_text() == step_name(step)
        if not killed:
            return count
        count += 1


def test_a_new_checkpoint(tmp_path: Path) -> None:
    assert _every_kill(tmp_path, (1, 2), 3) > 40


def test_one_that_takes_the_place_of_another_of_its_step(tmp_path: Path) -> None:
    assert _every_kill(tmp_path, (1, 2), 2) > 40
