"""Folders in the Hugging Face layout: written whole or not at all; `read_hf_folder` opens them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.folder_reader import INDEX, FolderWeights, read_hf_folder, read_json
from model.conversion.room import check_room, filling
from model.conversion.tensor_file import StreamedTensor, write_tensor_file
from model.errors import InputError
from model.vision.encoder import PIXEL_MEAN, PIXEL_STD

__all__ = ["COMPANIONS", "FORMATS", "MAX_FILE_BYTES", "FolderWeights", "read_hf_folder", "read_json", "write_hf_folder"]

FORMATS = ("video_mllama", "mllama")
MAX_FILE_BYTES = 5 * 10**9
"""Size above which the weights are spread over several files behind an index."""

COMPANIONS = (
    "tokenizer_config.json", "special_tokens_map.json", "chat_template.json", "chat_template.jinja", "processor_config.json",
    "preprocessor_config.json", "generation_config.json",
)  # fmt: skip
"""Files beside weights and tokenizer.json that travel with a model through a conversion and back."""

ENDING_TOKENS = ("<|end_of_text|>", "<|eot_id|>")
"""What the pretraining and the chat template close a reply with."""

_PLAIN_FORMAT_WARNING = (
    "format mllama: the stock model loads these weights without complaint but computes another function, since it "
    "neither pools the patches nor rotates queries and keys in cross-attention; use it for its tools, not its outputs"
)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_weights(folder: Path, tensors: Mapping[str, StreamedTensor], max_bytes: int) -> None:
    files: list[list[str]] = [[]]
    size = total = 0
    for name, tensor in tensors.items():
        bytes_here = tensor.info.num_bytes
        if files[-1] and size + bytes_here > max_bytes:
            files.append([])
            size = 0
        files[-1].append(name)
        size += bytes_here
        total += bytes_here
    single = len(files) == 1
    where: dict[str, str] = {}
    for number, names in enumerate(files, start=1):
        file = "model.safetensors" if single else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        write_tensor_file(folder / file, {name: tensors[name] for name in names})
        where |= dict.fromkeys(names, file)
    if not single:
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _ending_ids(config: VideoMllamaConfig, tokenizer: Path | None) -> set[int]:
    """Tokens at which a reply ends: the config's, and those of the tokenizer that the templates close with."""
    added = read_json(tokenizer).get("added_tokens", []) if tokenizer is not None else []
    known = {entry["content"]: int(entry["id"]) for entry in added}
    found = [config.text.eos_token_id, *(known.get(name) for name in ENDING_TOKENS)]
    return {number for number in found if number is not None}


def _generation_config(config: VideoMllamaConfig, tokenizer: Path | None, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The model's own generation_config.json where it came with one, the tokens that end a reply completed."""
    text, ending = config.text, _ending_ids(config, tokenizer)
    before = (given or {}).get("eos_token_id")
    ending |= set(before if isinstance(before, list) else [] if before is None else [before])
    ids: dict[str, Any] = {"bos_token_id": text.bos_token_id, "pad_token_id": text.pad_token_id}
    ids["eos_token_id"] = sorted(ending) if len(ending) > 1 else next(iter(ending), None)
    base = {"_from_model_config": True, "do_sample": False} if given is None else dict(given)
    return base | {name: value for name, value in ids.items() if value is not None}


def _preprocessor_config(config: VideoMllamaConfig) -> dict[str, Any]:
    size = config.vision.image_size
    return {
        "image_processor_type": "MllamaImageProcessor",
        "processor_class": "MllamaProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
        "max_image_tiles": 1,
        "size": {"height": size, "width": size},
    }


def _write_companions(folder: Path, config: VideoMllamaConfig, tokenizer: Path | None, companions: Path | None) -> None:
    """Everything beside weights and config.json: copied where the model came with it, else made from the config."""
    given = {} if companions is None else {name: companions / name for name in COMPANIONS if (companions / name).is_file()}
    for name, path in given.items():
        shutil.copyfile(path, folder / name)
    if "preprocessor_config.json" not in given:
        _write_json(folder / "preprocessor_config.json", _preprocessor_config(config))
    known = read_json(given["generation_config.json"]) if "generation_config.json" in given else None
    _write_json(folder / "generation_config.json", _generation_config(config, tokenizer, known))
    if tokenizer is not None:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")


def _publish(written: Path, target: Path) -> None:
    """Renames the finished folder into place; an older checkpoint there is moved aside first and then deleted."""
    if not target.exists():
        os.replace(written, target)
        return
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex}.old")
    os.replace(target, old)
    try:
        os.replace(written, target)
    except BaseException:
        os.replace(old, target)
        raise
    shutil.rmtree(old)


def _check_target(target: Path) -> None:
    if target.name in ("", ".."):
        raise InputError(f"the target {target} has no name of its own to be written under; give the folder's name")
    if target.is_dir() and any(target.iterdir()):
        if not (target / "config.json").is_file():
            raise InputError(f"{target} holds other files than a checkpoint; choose an empty or new folder")
        if "moss_train" not in read_json(target / "config.json"):
            raise InputError(f"{target} holds a checkpoint that another program wrote; choose an empty or new folder")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; choose a folder")


def write_hf_folder(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor] | Mapping[str, StreamedTensor], config: VideoMllamaConfig, *,
    model_format: str = "video_mllama", stage: str | None = None, tokenizer_path: str | os.PathLike[str] | None = None,
    extra: Mapping[str, Any] | None = None, max_file_bytes: int = MAX_FILE_BYTES, companions: Path | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Path:  # fmt: skip
    """Writes config.json, the weights, generation_config.json, preprocessor_config.json and tokenizer.json.

    Args:
        path: the folder; a checkpoint that was written there in the same way is replaced.
        tensors: by published name: whole tensors, as `gather_hf_weights` returns them, or ones that are made in
            blocks while they are written.
        config: the model.
        model_format: video_mllama | mllama; mllama is the plain layout, whose stock code computes another function.
        stage: training stage that the weights come from; real-time commands accept `sft_realtime` only.
        tokenizer_path: a tokenizer.json to copy.
        extra: further plain values for the `moss_train` section of config.json (frames, template, emission).
        max_file_bytes: bytes in one safetensors file at most, unless a single tensor is larger.
        companions: a folder whose `COMPANIONS` are copied.
        finish: called with the folder under its temporary name when all else is written.

    Raises:
        InputError: an unknown format, a missing tokenizer, a target that is no checkpoint folder, or too little room.
    """
    if model_format not in FORMATS:
        raise InputError(f"--format is {model_format!r}; use one of {', '.join(FORMATS)}")
    if model_format == "mllama":
        warnings.warn(_PLAIN_FORMAT_WARNING, stacklevel=2)
    target = Path(path)
    _check_target(target)
    tokenizer = None if tokenizer_path is None else Path(tokenizer_path)
    if tokenizer is not None and not tokenizer.is_file():
        raise InputError(f"tokenizer {tokenizer_path} does not exist; give the path of a tokenizer.json")
    streams = {name: t if isinstance(t, StreamedTensor) else StreamedTensor.of(t) for name, t in tensors.items()}
    check_room(target, sum(stream.info.num_bytes for stream in streams.values()))
    dtype = str(next(iter(streams.values())).info.dtype).removeprefix("torch.")
    section = {"stage": stage, "switches": dataclasses.asdict(config.switches), **(extra or {})}
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    written.mkdir()
    try:
        with filling(target):
            _write_weights(written, streams, max_file_bytes)
            _write_json(written / "config.json", config.to_hf(model_format, dtype) | {"moss_train": section})
            _write_companions(written, config, tokenizer, companions)
            if finish is not None:
                finish(written)
        _publish(written, target)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return target
