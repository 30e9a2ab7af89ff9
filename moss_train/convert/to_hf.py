"""A checkpoint of a run, written by any layout, as a folder in the Hugging Face layout, one block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.folder import FORMATS, MAX_FILE_BYTES, write_hf_folder
from model.conversion.stream import ParameterRows, published_blocks, published_infos
from model.conversion.table import Rule, all_rules
from model.conversion.tensor_file import StreamedTensor, TensorInfo
from model.errors import InputError
from moss_train.checkpoint.description import find_checkpoint, read_description
from moss_train.convert.certificate import Hashes, make_certificate, write_certificate
from moss_train.convert.from_hf import COMPANION_FOLDER
from moss_train.convert.parameters import open_parameters
from moss_train.convert.progress import ByteProgress
from moss_train.convert.termination import termination_cleans_up


def run_root(checkpoint: Path) -> Path:
    """The run folder that a checkpoint belongs to."""
    return checkpoint.resolve().parent.parent


@termination_cleans_up()
def checkpoint_to_hf(
    source: Path, out: Path, *, model_format: str = "video_mllama", tokenizer: Path | None = None,
    max_file_bytes: int = MAX_FILE_BYTES, average: bool = False,
) -> tuple[Path, Path]:  # fmt: skip
    """Writes the newest checkpoint of a run (or the checkpoint given) as a Hugging Face folder; no model is built.

    Args:
        source: run folder or checkpoint folder.
        out: the folder to write.
        model_format: video_mllama | mllama.
        tokenizer: a tokenizer.json, or a folder with one and the files that belong to it; None takes the run's own.
        average: write the running averages of the trained weights.
        max_file_bytes: bytes in one safetensors file at most, unless a single tensor is larger.

    Returns:
        The checkpoint that was read and the folder that was written.

    Raises:
        InputError: nothing to read, nothing to write to, too little room, or an unknown format.
    """
    if model_format not in FORMATS:
        raise InputError(f"--format is {model_format!r}; use one of {', '.join(FORMATS)}")
    checkpoint = find_checkpoint(source)
    description = read_description(checkpoint)
    config, parameters = description.config, open_parameters(checkpoint, description, average=average)
    infos = published_infos(parameters, config)
    chosen, companions = _files_beside(run_root(checkpoint), tokenizer)
    hashes = Hashes()

    def finish(folder: Path) -> None:
        merged = description.lora is not None
        certificate = make_certificate(checkpoint, out, "to-hf", config, infos, hashes.digests(), adapters_merged=merged)
        write_certificate(folder, certificate)

    with ByteProgress("to-hf", sum(info.num_bytes for info in infos.values())) as progress:
        write_hf_folder(
            out, streams(parameters, config, infos, hashes, progress), config, model_format=model_format,
            stage=description.stage.get("name"), tokenizer_path=chosen, extra=_extra(description.stage, description.step),
            max_file_bytes=max_file_bytes, companions=companions, finish=finish,
        )  # fmt: skip
    return checkpoint, out


def streams(
    parameters: ParameterRows, config: VideoMllamaConfig, infos: dict[str, TensorInfo], hashes: Hashes, progress: ByteProgress
) -> dict[str, StreamedTensor]:
    """Every published tensor of a checkpoint, made and hashed block by block when it is asked for."""

    def blocks(name: str, rule: Rule, part: int) -> Iterator[Tensor]:
        for block in hashes.passing(name, published_blocks(rule, part, parameters, config)):
            progress.advance(block.numel() * block.element_size())
            yield block

    found = {
        name: StreamedTensor(infos[name], partial(blocks, name, rule, part))
        for rule in all_rules(config)
        for part, name in enumerate(rule.hf)
    }
    return {name: found[name] for name in infos}


def _files_beside(run: Path, tokenizer: Path | None) -> tuple[Path | None, Path]:
    """tokenizer.json and the folder of the files that belong to it."""
    if tokenizer is not None and tokenizer.is_dir():
        return tokenizer / "tokenizer.json", tokenizer
    own = run / "tokenizer.json"
    return tokenizer or (own if own.is_file() else None), run / COMPANION_FOLDER


def _extra(stage: dict[str, Any], step: int) -> dict[str, Any]:
    """What a user of the weights must know of the stage that made them."""
    return {"step": step} | {name: stage[name] for name in ("frames", "template", "emission") if name in stage}
