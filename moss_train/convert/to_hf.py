"""A checkpoint of a run, written by any layout, as a folder in the Hugging Face layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing

from model.conversion.folder import FORMATS, write_hf_folder
from model.conversion.live import gather_hf_weights
from model.errors import InputError
from moss_train.checkpoint.description import find_checkpoint, read_description
from moss_train.checkpoint.load import load_model_weights
from moss_train.config.schema import ParallelConfig
from moss_train.convert.solo import bare_model

_NORM = "decoder.final_layernorm.weight"


def checkpoint_dtype(checkpoint: Path) -> torch.dtype:
    """Dtype of the weights in a checkpoint.

    Raises:
        InputError: the checkpoint's index cannot be read.
    """
    try:
        tensors = dist_checkpointing.load_tensors_metadata(str(checkpoint))
        dtype: torch.dtype = tensors[_NORM].dtype
    except Exception as error:  # the reader raises whatever its index decoder raises
        raise InputError(f"{checkpoint} cannot be read ({type(error).__name__}: {error}); use an earlier checkpoint") from None
    return dtype


def run_root(checkpoint: Path) -> Path:
    """The run folder that a checkpoint belongs to."""
    return checkpoint.resolve().parent.parent


def checkpoint_to_hf(
    source: Path, out: Path, *, model_format: str = "video_mllama", tokenizer: Path | None = None
) -> tuple[Path, Path]:
    """Writes the newest checkpoint of a run (or the checkpoint given) as a Hugging Face folder, in a world of one rank.

    Args:
        source: run folder or checkpoint folder.
        out: the folder to write.
        model_format: video_mllama | mllama.
        tokenizer: a tokenizer.json; None takes the run's own.

    Returns:
        The checkpoint that was read and the folder that was written.

    Raises:
        InputError: nothing to read, nothing to write to, or an unknown format.
    """
    if model_format not in FORMATS:
        raise InputError(f"--format is {model_format!r}; use one of {', '.join(FORMATS)}")
    checkpoint = find_checkpoint(source)
    description = read_description(checkpoint)
    own = run_root(checkpoint) / "tokenizer.json"
    chosen = tokenizer or (own if own.is_file() else None)
    with bare_model(description.config, checkpoint_dtype(checkpoint), ParallelConfig()) as model:
        load_model_weights(checkpoint, model.chunks, model.vision)
        tensors = gather_hf_weights(model.chunks, model.vision)
        assert tensors is not None, "rank 0 of a world of one gathers everything"
        write_hf_folder(
            out, tensors, description.config, model_format=model_format, stage=description.stage.get("name"),
            tokenizer_path=chosen, extra=_extra(description.stage, description.step),
        )  # fmt: skip
    return checkpoint, out


def _extra(stage: dict[str, Any], step: int) -> dict[str, Any]:
    """What a user of the weights must know of the stage that made them."""
    return {"step": step} | {name: stage[name] for name in ("frames", "template") if name in stage}
