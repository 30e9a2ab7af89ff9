"""Reading a checkpoint: weights alone in any layout, or everything to continue a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.lora.merge_live import merge_into
from model.lora.spec import LoraSpec
from moss_train.checkpoint.adapters import read_adapters
from moss_train.checkpoint.description import CheckpointDescription, find_checkpoint, first_difference, read_description
from moss_train.checkpoint.loader_state import read_loader_state
from moss_train.checkpoint.random_state import restore_random_state
from moss_train.checkpoint.state import METADATA, model_state, put_back
from moss_train.checkpoint.torch_file import read_torch_file
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout


@dataclass
class TrainingState:
    """What a continued run starts from, weights and optimizer apart."""

    step: int
    loader: Any
    """The merged loader states of all replicas that saved; None where they saved none."""
    monitors: dict[str, Any]
    """What the run's monitors kept, by their names."""


def load_model_weights(path: Path | str, chunks: Sequence[torch.nn.Module], vision: torch.nn.Module) -> None:
    """Load weights into live modules without adapters, whatever layout wrote them; every rank calls it.

    Adapters in the checkpoint are merged into the weights.

    Args:
        path: run folder (its newest checkpoint), checkpoint folder, or Hugging Face folder.
        chunks: decoder chunks without wrappers.
        vision: the vision encoder or the vision unit (its dense head is left alone).

    Raises:
        InputError: nothing to read there, or a checkpoint of another model.
    """
    folder = Path(path)
    encoder: torch.nn.Module = getattr(vision, "encoder", vision)
    config: VideoMllamaConfig = chunks[0].model_config  # type: ignore[assignment]
    if (folder / "config.json").is_file():
        from model.conversion import load_hf_weights
        from model.conversion.folder import read_hf_folder

        theirs, tensors, _ = read_hf_folder(folder)
        check_same_model(config, theirs, folder)
        load_hf_weights(chunks, encoder, tensors)
        return
    checkpoint = find_checkpoint(folder)
    description = read_description(checkpoint)
    check_same_model(config, description.config, checkpoint)
    state = _load(model_state(chunks, encoder), checkpoint)
    put_back(state, chunks, encoder)
    if description.lora is not None:
        factors = {name.removeprefix("vision."): pair for name, pair in read_adapters(checkpoint).items()}
        merge_into(chunks, encoder, factors, LoraSpec.from_dict(description.lora).scale)


def load_training_state(
    checkpoint: Path,
    chunks: Sequence[torch.nn.Module],
    vision: torch.nn.Module,
    optimization: Optimization,
    layout: ParallelLayout,
) -> TrainingState:
    """Continue from a checkpoint, in any layout; every rank calls it.

    Raises:
        InputError: weights only, another model, or files that are missing or damaged.
    """
    description = read_description(checkpoint)
    check_same_model(chunks[0].model_config, description.config, checkpoint)  # type: ignore[arg-type]
    _check_continuable(description, checkpoint)
    loader = read_loader_state(checkpoint, description.data_size)
    state = model_state(chunks, vision)
    state["optimizer"] = optimization.optimizer.sharded_state_dict(state, is_loading=True, metadata=METADATA)
    loaded = _load(state, checkpoint)
    put_back(loaded, chunks, vision)
    with torch.no_grad():
        optimization.optimizer.load_state_dict(loaded["optimizer"])
    optimization.set_updates(description.step if description.updates is None else description.updates)
    own = checkpoint / f"random_{layout.rank:05d}.pt"
    if description.world_size == layout.world_size and own.is_file():
        restore_random_state(read_torch_file(own))
    return TrainingState(step=description.step, loader=loader, monitors=description.monitors)


def check_same_model(ours: VideoMllamaConfig, theirs: VideoMllamaConfig, where: Path) -> None:
    """Raise InputError naming the first field in which a checkpoint's model differs from ours."""
    difference = first_difference(ours, theirs)
    if difference is not None:
        raise InputError(f"{where} is a checkpoint of another model: {difference}; use its config or another checkpoint")


def _check_continuable(description: CheckpointDescription, checkpoint: Path) -> None:
    if description.weights_only:
        raise InputError(
            f"{checkpoint} holds weights only and cannot be continued; give it as train.init_from with another run_dir"
        )


def _load(state: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = dist_checkpointing.load(state, str(checkpoint))
    except (dist_checkpointing.core.CheckpointingException, FileNotFoundError, EOFError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{checkpoint} cannot be read ({first_line}); use an earlier checkpoint") from None
    return loaded
