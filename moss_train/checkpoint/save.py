"""Writing a checkpoint while everybody waits: by all ranks under a temporary name, then published whole by rank 0."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from model.config import VideoMllamaConfig
from moss_train.checkpoint.collect import collect_training, collect_weights, described
from moss_train.checkpoint.common import reason
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.publish import final_folder, publish, temporary_folder
from moss_train.checkpoint.rank_files import RankFiles
from moss_train.checkpoint.retention import remove_old
from moss_train.checkpoint.saved import SavedOptimization
from moss_train.feed.agreement import CommonError
from moss_train.parallel.layout import ParallelLayout


def save_checkpoint(
    run_dir: Path,
    description: CheckpointDescription,
    chunks: Sequence[torch.nn.Module],
    vision: torch.nn.Module,
    optimization: SavedOptimization,
    layout: ParallelLayout,
    *,
    loader_state: Any = None,
    keep_last: int = 2,
    keep_every: int = 0,
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
        keep_every: steps whose multiples are kept as well.

    Raises:
        CommonError: some rank cannot write; nothing is left of the attempt, and the checkpoint before stays.
    """
    files = collect_training(chunks, vision, optimization, layout, loader_state)
    final = write_and_publish(run_dir, described(description, optimization, layout), files)
    if layout.rank == 0:
        with suppress(OSError):  # the checkpoint stands; what is too much goes another time
            remove_old(run_dir, keep_last, keep_every, [final.name])
    return final


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
        step=step, model=dataclasses.asdict(config), stage=stage or {}, weights_only=True, lora=lora,
        world_size=dist.get_world_size(),
    )  # fmt: skip
    return write_and_publish(Path(run_dir), description, collect_weights(chunks, vision, dist.get_rank()))


def write_and_publish(run_dir: Path, description: CheckpointDescription, files: RankFiles) -> Path:
    """Write what the ranks have collected and publish it; every rank calls it, with the same description.

    Raises:
        CommonError: some rank cannot write; nothing is left of the attempt.
    """
    final, temporary = final_folder(run_dir, description.step), temporary_folder(run_dir, description.step)
    first = dist.get_rank() == 0

    def make() -> None:
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

    def write() -> None:
        files.write(temporary)

    def reveal() -> None:
        if first:
            publish(run_dir, temporary, description)

    for part in (make, write, reveal):
        trouble = _first_trouble(part)
        if trouble is not None:
            if first:
                shutil.rmtree(temporary, ignore_errors=True)
            raise CommonError(f"{final} cannot be written ({trouble}); make room or the folder writable and continue the run")
    return final


def _first_trouble(part: Callable[[], None]) -> str | None:
    """Do this rank's part and wait for the others; on all ranks why the first of those that failed did."""
    own = None
    try:
        part()
    except Exception as error:
        own = reason(error)
    everyone: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return next((trouble for trouble in everyone if trouble is not None), None)
