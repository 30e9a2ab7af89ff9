"""Reading a checkpoint: weights alone in any layout, or everything to continue a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.lora.merge_live import merge_into
from model.lora.spec import LoraSpec
from moss_train.checkpoint.adapters import read_adapters
from moss_train.checkpoint.common import in_common
from moss_train.checkpoint.description import CheckpointDescription, find_checkpoint, first_difference, read_description
from moss_train.checkpoint.fill import fill, fill_optimizers
from moss_train.checkpoint.integrity import check_checkpoint
from moss_train.checkpoint.loader_state import read_loader_state
from moss_train.checkpoint.optimizer_state import PREFIX
from moss_train.checkpoint.random_state import restore_random_state
from moss_train.checkpoint.rank_files import random_file
from moss_train.checkpoint.saved import SavedOptimization
from moss_train.checkpoint.state import ModelPlaces, places_of
from moss_train.checkpoint.tensors import CheckpointTensors
from moss_train.checkpoint.torch_file import read_torch_file
from moss_train.parallel.layout import ParallelLayout


@dataclass
class TrainingState:
    """What a continued run starts from, weights and optimizer apart."""

    step: int
    loader: Any
    """The merged loader states of all replicas that saved; None where they saved none."""
    monitors: dict[str, Any]
    """What the run's monitors kept, by their names."""
    folder: Path
    """The checkpoint."""


def load_model_weights(
    path: Path | str, chunks: Sequence[torch.nn.Module], vision: torch.nn.Module, *, verify: str = "full"
) -> None:
    """Load weights into live modules without adapters, whatever layout wrote them; every rank calls it.

    Adapters in the checkpoint are merged into the weights.

    Args:
        path: run folder (its newest checkpoint), checkpoint folder, or Hugging Face folder.
        chunks: decoder chunks without wrappers.
        vision: the vision encoder or the vision unit (its dense head is left alone).
        verify: full | sizes: what of a checkpoint is compared before.

    Raises:
        InputError: nothing to read there, damaged, or a checkpoint of another model.
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
    check_checkpoint(checkpoint, verify, lambda key: not key.startswith(PREFIX))
    _load_weights(checkpoint, ModelPlaces(chunks, encoder))
    if description.lora is not None:
        factors = {name.removeprefix("vision."): pair for name, pair in read_adapters(checkpoint).items()}
        merge_into(chunks, encoder, factors, LoraSpec.from_dict(description.lora).scale)


def load_training_state(
    checkpoint: Path,
    chunks: Sequence[torch.nn.Module],
    vision: torch.nn.Module,
    optimization: SavedOptimization,
    layout: ParallelLayout,
    *,
    verify: str = "full",
) -> TrainingState:
    """Continue from a checkpoint, in any layout; every rank calls it.

    Args:
        checkpoint: its folder.
        chunks: decoder chunks without wrappers.
        vision: the vision unit.
        optimization: gradient buffers and optimizers.
        layout: this rank's place.
        verify: full | sizes | nothing: what is compared before; `nothing` where that has been done.

    Raises:
        InputError: weights only, another model, or files that are missing or damaged.
    """
    description = read_description(checkpoint)
    check_same_model(chunks[0].model_config, description.config, checkpoint)  # type: ignore[arg-type]
    check_continuable(description, checkpoint)
    check_checkpoint(checkpoint, verify)
    loader = read_loader_state(checkpoint, description.data_size)
    places = places_of(optimization, chunks, vision)
    tensors = _load_weights(checkpoint, places)
    optimizers = optimization.optimizer.chained_optimizers
    in_common(lambda: fill_optimizers(optimizers, places, tensors))
    optimization.set_updates(description.applied)

    def restore() -> None:
        if description.world_size == layout.world_size:
            restore_random_state(read_torch_file(checkpoint / random_file(layout.rank)))

    in_common(restore)
    return TrainingState(step=description.step, loader=loader, monitors=description.monitors, folder=checkpoint)


def check_same_model(ours: VideoMllamaConfig, theirs: VideoMllamaConfig, where: Path) -> None:
    """Raise InputError naming the first field in which a checkpoint's model differs from ours."""
    difference = first_difference(ours, theirs)
    if difference is not None:
        raise InputError(f"{where} is a checkpoint of another model: {difference}; use its config or another checkpoint")


def check_continuable(description: CheckpointDescription, checkpoint: Path) -> None:
    """Raise InputError for a checkpoint without optimizer state."""
    if description.weights_only:
        raise InputError(
            f"{checkpoint} holds weights only and cannot be continued; give it as train.init_from with another run_dir"
        )


def _load_weights(checkpoint: Path, places: ModelPlaces) -> CheckpointTensors:
    """Fill the parameters and the small states beside them; every rank calls it."""

    def work() -> CheckpointTensors:
        tensors = CheckpointTensors(checkpoint, verify=False)
        fill(list(places.weights()), tensors)
        stored = tensors.index.objects
        files = {stored[key] for key in places.object_keys() if key in stored}
        found = {key: value for file in sorted(files) for key, value in read_torch_file(checkpoint / file).items()}
        places.put_objects(found)
        return tensors

    return in_common(work)
