"""A folder in the Hugging Face layout as the first checkpoint of a run, one block of rows at a time."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.folder import COMPANIONS, FolderWeights, read_hf_folder
from model.conversion.room import check_room, filling
from model.conversion.stream import check_published, cut, parameter_info, parameter_rows
from model.conversion.table import Rule, all_rules
from model.conversion.tensor_file import StreamedTensor, TensorInfo, scratch
from model.errors import InputError
from moss_train.checkpoint.description import LATEST, CheckpointDescription, newest_checkpoint, step_name
from moss_train.checkpoint.publish import complete, reveal
from moss_train.checkpoint.tensor_writer import write_tensors
from moss_train.convert.certificate import Hashes, make_certificate, write_certificate
from moss_train.convert.progress import ByteProgress
from moss_train.convert.termination import termination_cleans_up

COMPANION_FOLDER = "hf_files"
"""Where a run keeps the files that lay beside the weights it came from."""

CHUNK_BYTES = 32 << 20
"""Largest part of a tensor that is in memory."""

_STAGE_FIELDS = ("frames", "template", "emission")


def check_target(run: Path) -> None:
    """Refuses a run folder that already has a checkpoint.

    Raises:
        InputError: it has one, or it is a file.
    """
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file; choose a folder")
    if newest_checkpoint(run) is not None:
        raise InputError(f"{run} already holds a checkpoint; choose a new run folder")
    first = run / "checkpoints" / step_name(0)
    if first.exists():
        raise InputError(f"{first} is there, though it holds no whole checkpoint; remove it or choose a new run folder")


def stage_values(section: dict[str, Any]) -> dict[str, Any]:
    """The stage as a checkpoint describes it, from the `moss_train` section of config.json."""
    known = {name: section[name] for name in _STAGE_FIELDS if name in section}
    return ({"name": section["stage"]} if section.get("stage") else {}) | known


class _HashedWeights:
    """Published tensors whose rows are hashed while they are read; each row is read once, in order."""

    def __init__(self, weights: FolderWeights, hashes: Hashes, progress: ByteProgress) -> None:
        self._weights, self._hashes, self._progress = weights, hashes, progress

    def info(self, name: str) -> TensorInfo:
        return self._weights.info(name)

    def read_rows(self, name: str, first: int, target: Tensor) -> None:
        self._weights.read_rows(name, first, target)
        self._hashes.update(name, target)
        self._progress.advance(target.numel() * target.element_size())


@termination_cleans_up()
def hf_to_checkpoint(folder: Path, run: Path, *, chunk_bytes: int = CHUNK_BYTES) -> Path:
    """Writes the weights of a folder as a checkpoint that any layout loads; no model is built.

    Args:
        folder: config.json and safetensors, of either format.
        run: the run folder to write.
        chunk_bytes: largest part of a tensor in memory.

    Returns:
        The checkpoint folder, with its certificate.

    Raises:
        InputError: a bad folder, a run folder with a checkpoint, or too little room.
    """
    check_target(run)
    config, weights, section = read_hf_folder(folder)
    infos = {name: weights.info(name) for name in weights}
    try:
        check_published(set(weights), infos, config)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    total = sum(info.num_bytes for info in infos.values())
    check_room(run, total)
    final = run / "checkpoints" / step_name(0)
    temporary = final.with_name(final.name + ".tmp")
    ours = _not_there_yet(run)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    hashes = Hashes()
    try:
        with filling(run), ByteProgress("from-hf", total) as progress:
            source = _HashedWeights(weights, hashes, progress)
            index = write_tensors(temporary, _tensors(config, source, infos, chunk_bytes))
            model, stage = dataclasses.asdict(config), stage_values(section)
            complete(temporary, CheckpointDescription(step=0, model=model, stage=stage, weights_only=True), [index])
            certificate = make_certificate(folder, final, "from-hf", config, infos, hashes.digests())
            write_certificate(temporary, certificate)
            _copy_companions(folder, run)
        reveal(run, temporary, 0)
    except BaseException:
        for path in (temporary, final, *ours):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise
    return final


def _not_there_yet(run: Path) -> list[Path]:
    """What of a run folder a conversion makes, beside its checkpoint."""
    parts = (run, run / "checkpoints", run / LATEST, run / "tokenizer.json", run / COMPANION_FOLDER)
    inside = tuple(run / COMPANION_FOLDER / name for name in COMPANIONS)
    return [path for path in (*parts, *inside) if not path.exists()]


def _tensors(
    config: VideoMllamaConfig, source: _HashedWeights, infos: dict[str, TensorInfo], chunk_bytes: int
) -> dict[str, StreamedTensor]:
    """Every parameter of the checkpoint, made when it is written."""
    found = {}
    for rule in all_rules(config):
        info = parameter_info(rule, infos)
        found[rule.megatron] = StreamedTensor(info, partial(_chunks, rule, info, source, config, chunk_bytes))
    return found


def _chunks(
    rule: Rule, info: TensorInfo, source: _HashedWeights, config: VideoMllamaConfig, chunk_bytes: int
) -> Iterator[Tensor]:
    for first, count in cut(0, info.shape[0], info.row_bytes, chunk_bytes):
        chunk = scratch((count, *info.shape[1:]), info.dtype)
        parameter_rows(rule, source, config, first, chunk)
        yield chunk
        del chunk  # before the next one is made


def _copy_companions(folder: Path, run: Path) -> None:
    """The tokenizer goes where a run keeps its own, other files that lie beside the weights into a folder of theirs."""
    found = {name: run / COMPANION_FOLDER / name for name in COMPANIONS} | {"tokenizer.json": run / "tokenizer.json"}
    for name, target in found.items():
        if (folder / name).is_file():
            target.parent.mkdir(exist_ok=True)
            partial = target.with_name(f".{name}")
            shutil.copyfile(folder / name, partial)
            os.replace(partial, target)
