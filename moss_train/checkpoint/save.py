"""Writing a checkpoint: under a temporary name by all ranks, then published whole by rank 0."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from torch.distributed.checkpoint.api import CheckpointException

from model.config import VideoMllamaConfig
from moss_train.checkpoint.description import (
    LATEST,
    CheckpointDescription,
    remove_old,
    step_name,
    write_atomically,
    write_description,
)
from moss_train.checkpoint.loader_state import loader_file
from moss_train.checkpoint.random_state import random_state
from moss_train.checkpoint.state import METADATA, model_state
from moss_train.checkpoint.torch_file import write_torch_file
from moss_train.engines.optimization import Optimization
from moss_train.feed.agreement import CommonError
from moss_train.parallel.layout import ParallelLayout

_FULL_BYTES = 16 << 20
"""A disk with less room has refused a file of torch's for that."""


def _is_news(record: logging.LogRecord) -> bool:
    # A stage that trains nothing has no optimizer state where others have some: known and harmless.
    return "'param_state')" not in record.getMessage()


logging.getLogger("megatron.core.dist_checkpointing.validation").addFilter(_is_news)


def save_checkpoint(
    run_dir: Path,
    description: CheckpointDescription,
    chunks: Sequence[torch.nn.Module],
    vision: torch.nn.Module,
    optimization: Optimization,
    layout: ParallelLayout,
    *,
    loader_state: Any = None,
    keep_last: int = 2,
) -> Path:
    """Save everything that an exact continuation needs and publish it; every rank calls it.

    Args:
        run_dir: the run folder.
        description: step, model and stage.
        chunks: decoder chunks without wrappers.
        vision: the vision unit.
        optimization: gradient buffers and optimizers.
        layout: this rank's place.
        loader_state: this replica's data cursor; the replica's first rank writes it.
        keep_last: checkpoints kept.

    Raises:
        CommonError: some rank cannot write; nothing is left of the attempt, and the checkpoint before stays.
    """
    state = model_state(chunks, vision)
    optimization.set_updates(optimization.updates)
    state["optimizer"] = optimization.optimizer.sharded_state_dict(state, metadata=METADATA)

    def write_own(folder: Path) -> None:
        write_torch_file(random_state(), folder / f"random_{layout.rank:05d}.pt")
        if layout.writes_for_replica:
            write_torch_file(loader_state, folder / loader_file(layout.place.data))

    description = dataclasses.replace(
        description, updates=optimization.updates, data_size=layout.data_size, world_size=layout.world_size
    )
    return _publish(run_dir, description, state, write_own, keep_last)


def save_model_only(
    run_dir: Path | str,
    chunks: Sequence[torch.nn.Module],
    vision: torch.nn.Module,
    config: VideoMllamaConfig,
    *,
    stage: dict[str, Any] | None = None,
    step: int = 0,
    lora: dict[str, Any] | None = None,
) -> Path:
    """Save weights without optimizer state into a run folder, for `train.init_from` or a conversion; every rank calls it."""
    description = CheckpointDescription(
        step=step, model=dataclasses.asdict(config), stage=stage or {}, weights_only=True, lora=lora
    )
    return _publish(Path(run_dir), description, model_state(chunks, vision), lambda folder: None, keep=1 << 30)


def _publish(run_dir: Path, description: CheckpointDescription, state: dict[str, Any], write_own: Any, keep: int) -> Path:
    final = run_dir / "checkpoints" / step_name(description.step)
    temporary = final.with_name(final.name + ".tmp")
    first = dist.get_rank() == 0

    def make() -> None:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    def write() -> None:
        dist_checkpointing.save(state, str(temporary))
        write_own(temporary)

    def publish() -> None:
        if not first:
            return
        write_description(temporary, description)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        write_atomically(run_dir / LATEST, final.name)
        remove_old(run_dir, keep)

    for part in (make, write, publish):
        trouble = _first_trouble(part, run_dir)
        if trouble is not None:
            if first:
                shutil.rmtree(temporary, ignore_errors=True)
            raise CommonError(f"{final} cannot be written ({trouble}); make room or the folder writable and continue the run")
    return final


def _first_trouble(part: Callable[[], None], run_dir: Path) -> str | None:
    """Do this rank's part and wait for the others; on all ranks why the first of those that failed did."""
    own = None
    try:
        part()
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        own = _reason(error, run_dir)
    everyone: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return next((trouble for trouble in everyone if trouble is not None), None)


def _reason(error: BaseException, run_dir: Path) -> str:
    """What went wrong with the disk; a mistake of ours is printed with its traceback."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    with suppress(OSError):
        if shutil.disk_usage(run_dir).free < _FULL_BYTES:  # torch's writers do not say what the disk said
            return os.strerror(errno.ENOSPC)
    traceback.print_exception(error, file=sys.stderr)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}; its traceback stands above"
