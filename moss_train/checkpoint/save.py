"""Writing a checkpoint: under a temporary name by all ranks, then published whole by rank 0."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing

from model.config import VideoMllamaConfig
from model.errors import InputError
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
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout


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
    """
    state = model_state(chunks, vision)
    optimization.set_step(description.step)
    state["optimizer"] = optimization.optimizer.sharded_state_dict(state, metadata=METADATA)

    def write_own(folder: Path) -> None:
        torch.save(random_state(), folder / f"random_{layout.rank:05d}.pt")
        if layout.writes_for_replica:
            torch.save(loader_state, folder / loader_file(layout.place.data))

    description = dataclasses.replace(description, data_size=layout.data_size, world_size=layout.world_size)
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
    if first:
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"run_dir {run_dir} cannot be written ({error.strerror}); choose another folder") from None
    dist.barrier()
    dist_checkpointing.save(state, str(temporary))
    write_own(temporary)
    dist.barrier()
    if first:
        write_description(temporary, description)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        write_atomically(run_dir / LATEST, final.name)
        remove_old(run_dir, keep)
    dist.barrier()
    return final
