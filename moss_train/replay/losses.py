"""The loss of every target of replayed micro-batches, under the weights of a checkpoint, in this one process."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from data_pipeline.packing.batch import TOKEN_CLASSES, PackedMicroBatch
from model.errors import InputError
from model.rows import IGNORE_INDEX, PackedRows
from moss_train.checkpoint.description import find_checkpoint, published_checkpoints, read_description
from moss_train.config.schema import RunConfig
from moss_train.replay.run import ReplayedStep

if TYPE_CHECKING:
    from moss_train.engines.models import Models

FRAMES_AT_ONCE = 16
"""Frames in one call of the tower."""


@dataclass
class TokenLosses:
    """Losses by row; a row's is that of the token that follows it."""

    checkpoint: Path
    checkpoint_step: int
    rows: dict[int, torch.Tensor]
    """Unweighted, fp32 [T] on the CPU, by number of the micro-batch; 0 where a row has no target."""
    loss: float
    """Weighted as the run weights it: sum over the targets of these micro-batches, divided by their number."""
    class_loss: dict[str, float]
    """Mean unweighted loss by class of the target."""


def choose_checkpoint(found: ReplayedStep, wanted: Path | None) -> Path:
    """The checkpoint asked for, else the newest one of the run that was written before the step.

    Raises:
        InputError: there is none.
    """
    if wanted is not None:
        return find_checkpoint(wanted)
    earlier = [path for path in published_checkpoints(found.folder.path) if read_description(path).step < found.step]
    if not earlier:
        raise InputError(
            f"{found.folder.path} keeps no checkpoint from before step {found.step}; give one with --checkpoint, or leave "
            "--loss out"
        )
    return earlier[-1]


def token_losses(found: ReplayedStep, checkpoint: Path) -> TokenLosses:
    """Forward passes of one process that holds the whole model.

    Args:
        checkpoint: written in any layout; adapters in it are merged into the weights.

    Raises:
        InputError: the checkpoint cannot be read or is of another model, or the stage's objective has no token loss.
    """
    config = found.config
    if config.stage.objective != "next_token":
        raise InputError(f"stage.objective is {config.stage.objective}, which has no loss by token; leave --loss out")
    from moss_train.checkpoint.load import load_model_weights
    from moss_train.config.schema import ParallelConfig
    from moss_train.engines.models import build_models
    from moss_train.engines.precision import provider_of
    from moss_train.parallel.layout import start_layout, stop_layout
    from moss_train.parallel.world import start_world
    from moss_train.platform.device import resolve_device

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(megatron|torch)\..*")
    device = resolve_device("auto")
    config = _for_here(config, device)
    start_world(device)
    layout = start_layout(ParallelConfig(), device, config.train.seed)
    try:
        models = build_models(
            found.model_config, layout,
            dtype=config.precision.dtype, seed=config.train.seed, provider=provider_of(config),
            cross_attention=config.attention.cross,
        )  # fmt: skip
        load_model_weights(checkpoint, models.chunks, models.vision)
        models.chunks[0].eval()
        models.unit.eval()
        with torch.no_grad():
            rows = {number: _forward(models, batch, device) for number, batch in found.batches.items()}
    finally:
        stop_layout()
    loss, class_loss = _averages(found, rows)
    return TokenLosses(checkpoint, read_description(checkpoint).step, rows, loss, class_loss)


def _for_here(config: RunConfig, device: torch.device) -> RunConfig:
    """Without what only the run's machines have; fp8 products become those of the weights' own type."""
    precision = dataclasses.replace(config.precision, fp8="none", fp8_cross_layers=False, fp8_vision=False)
    if device.type == "cuda":
        return dataclasses.replace(config, precision=precision)
    attention = dataclasses.replace(config.attention, cross="auto")
    return dataclasses.replace(config, precision=precision, attention=attention, modules="auto")


def _forward(models: Models, batch: PackedMicroBatch, device: torch.device) -> torch.Tensor:
    """fp32 [T]"""
    states = None
    if batch.num_frames:
        parts = [
            models.vision(batch.frames[begin : begin + FRAMES_AT_ONCE].to(device), ids.to(device))
            for begin, ids in zip(
                range(0, batch.num_frames, FRAMES_AT_ONCE), batch.aspect_ratio_ids.split(FRAMES_AT_ONCE), strict=True
            )
        ]
        states = torch.cat(parts)  # [F, P, H]
    losses: torch.Tensor = models.chunks[0](PackedRows.of(batch, device), states)
    return losses.float().cpu()


def _averages(found: ReplayedStep, rows: Mapping[int, torch.Tensor]) -> tuple[float, dict[str, float]]:
    """The weighted loss a target, and means by class."""
    silence, weight = found.tokenizer.silence_id, found.config.stage.silence_token_weight
    total, count = 0.0, 0
    sums, counts = [0.0] * len(TOKEN_CLASSES), [0] * len(TOKEN_CLASSES)
    for number, losses in rows.items():
        batch = found.batches[number]
        counted = batch.targets != IGNORE_INDEX
        weights = torch.where(batch.targets == silence, weight, 1.0)
        total += float((losses.double() * weights)[counted].sum())
        count += int(counted.sum())
        for index in range(1, len(TOKEN_CLASSES)):
            chosen = counted & (batch.token_class == index)
            sums[index] += float(losses.double()[chosen].sum())
            counts[index] += int(chosen.sum())
    means = {name: s / n for name, s, n in zip(TOKEN_CLASSES, sums, counts, strict=True) if n}
    return total / max(count, 1), means
