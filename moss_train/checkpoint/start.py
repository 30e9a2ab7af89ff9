"""The weights that a fresh run starts from, and what it says about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from model.errors import InputError
from moss_train.checkpoint.averages import AveragedTensors
from moss_train.checkpoint.common import in_common
from moss_train.checkpoint.description import find_checkpoint, read_description
from moss_train.checkpoint.fill import fill
from moss_train.checkpoint.load import load_model_weights
from moss_train.checkpoint.state import ModelPlaces


def load_start(source: str, average: bool, chunks: Sequence[torch.nn.Module], vision: torch.nn.Module) -> str:
    """Load the weights that a run starts from; every rank calls it.

    Args:
        source: `train.init_from`.
        average: take the averages of the weights that the source's run trained.
        chunks, vision: modules without wrappers and adapters.

    Returns:
        A sentence about what was taken.

    Raises:
        InputError: nothing to read there, or no averages.
    """
    folder = Path(source)
    is_hf = (folder / "config.json").is_file()
    if average and is_hf:
        raise InputError(f"train.init_ema is true and {folder} is a Hugging Face folder, which holds no averages; use false")
    load_model_weights(folder, chunks, vision)
    if is_hf:
        return f"starting from the weights in {folder}"
    checkpoint = find_checkpoint(folder)
    description = read_description(checkpoint)
    origin = f"{checkpoint} (stage {description.stage.get('name', 'unknown')})"
    if not average:
        return f"starting from the weights of {origin}"
    if description.lora is not None:
        raise InputError(
            f"train.init_ema is true and {checkpoint} holds adapters; merge their averages with `moss convert to-hf --ema` and "
            "give the result as train.init_from"
        )

    def work() -> int:
        tensors = AveragedTensors(checkpoint)
        fill(list(ModelPlaces(chunks, vision).weights()), tensors)
        tensors.close()
        return len(tensors.averaged)

    return f"starting from the averages of {in_common(work)} trained tensors and the other weights of {origin}"
