"""Folders in the Hugging Face layout: written whole or not at all, read one tensor at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.config import SwitchConfig, VideoMllamaConfig
from model.errors import InputError
from model.vision.encoder import PIXEL_MEAN, PIXEL_STD

FORMATS = ("video_mllama", "mllama")
MAX_FILE_BYTES = 5 * 10**9
"""Size above which the weights are spread over several files behind an index."""

ENDING_TOKENS = ("<|end_of_text|>", "<|eot_id|>")
"""What the pretraining and the chat template close a reply with."""

_INDEX = "model.safetensors.index.json"
_PLAIN_FORMAT_WARNING = (
    "format mllama: the stock model loads these weights without complaint but computes another function, since it "
    "neither pools the patches nor rotates queries and keys in cross-attention; use it for its tools, not its outputs"
)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_weights(folder: Path, tensors: Mapping[str, Tensor], max_bytes: int) -> None:
    files: list[list[str]] = [[]]
    size = total = 0
    for name, tensor in tensors.items():
        bytes_here = tensor.numel() * tensor.element_size()
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
        save_file({name: tensors[name].contiguous() for name in names}, str(folder / file), metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    if not single:
        _write_json(folder / _INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _ending_ids(config: VideoMllamaConfig, tokenizer: Path | None) -> list[int]:
    """Tokens at which a reply ends: the config's, and those of the tokenizer that the templates close with."""
    added = _read_json(tokenizer).get("added_tokens", []) if tokenizer is not None else []
    known = {entry["content"]: int(entry["id"]) for entry in added}
    found = [config.text.eos_token_id, *(known.get(name) for name in ENDING_TOKENS)]
    return sorted({number for number in found if number is not None})


def _generation_config(config: VideoMllamaConfig, tokenizer: Path | None) -> dict[str, Any]:
    text, ending = config.text, _ending_ids(config, tokenizer)
    ids: dict[str, Any] = {"bos_token_id": text.bos_token_id, "pad_token_id": text.pad_token_id}
    ids["eos_token_id"] = ending if len(ending) > 1 else next(iter(ending), None)
    return {"_from_model_config": True, "do_sample": False} | {name: value for name, value in ids.items() if value is not None}


def _preprocessor_config(config: VideoMllamaConfig) -> dict[str, Any]:
    size = config.vision.image_size
    return {
        "image_processor_type": "MllamaImageProcessor",
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


def _publish(written: Path, target: Path) -> None:
    """Renames the finished folder into place; an older checkpoint there is moved aside first and then deleted."""
    if not target.exists():
        os.replace(written, target)
        return
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex}.old")
    os.replace(target, old)
    os.replace(written, target)
    shutil.rmtree(old)


def _check_target(target: Path) -> None:
    if target.name in ("", ".."):
        raise InputError(f"the target {target} has no name of its own to be written under; give the folder's name")
    if target.is_dir() and any(target.iterdir()):
        if not (target / "config.json").is_file():
            raise InputError(f"{target} holds other files than a checkpoint; choose an empty or new folder")
        if "moss_train" not in _read_json(target / "config.json"):
            raise InputError(f"{target} holds a checkpoint that another program wrote; choose an empty or new folder")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; choose a folder")


def write_hf_folder(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], config: VideoMllamaConfig, *,
    model_format: str = "video_mllama", stage: str | None = None, tokenizer_path: str | os.PathLike[str] | None = None,
    extra: Mapping[str, Any] | None = None, max_file_bytes: int = MAX_FILE_BYTES,
) -> Path:  # fmt: skip
    """Writes config.json, the weights, generation_config.json, preprocessor_config.json and tokenizer.json.

    Args:
        path: the folder; a checkpoint that was written there in the same way is replaced.
        tensors: whole tensors by published name, as `gather_hf_weights` returns them.
        config: the model.
        model_format: video_mllama | mllama; mllama is the plain layout, whose stock code computes another function.
        stage: training stage that the weights come from; real-time commands accept `sft_realtime` only.
        tokenizer_path: a tokenizer.json to copy.
        extra: further plain values for the `moss_train` section of config.json (frames, template).
        max_file_bytes: bytes in one safetensors file at most, unless a single tensor is larger.

    Raises:
        InputError: an unknown format, a missing tokenizer, or a target that is no checkpoint folder.
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
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    section = {"stage": stage, "switches": dataclasses.asdict(config.switches), **(extra or {})}
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    written.mkdir()
    try:
        _write_weights(written, tensors, max_file_bytes)
        _write_json(written / "config.json", config.to_hf(model_format, dtype) | {"moss_train": section})
        _write_json(written / "generation_config.json", _generation_config(config, tokenizer))
        _write_json(written / "preprocessor_config.json", _preprocessor_config(config))
        if tokenizer is not None:
            shutil.copyfile(tokenizer, written / "tokenizer.json")
        _publish(written, target)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return target


class FolderWeights(Mapping[str, Tensor]):
    """The tensors of a folder by name, each read from disk when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._where: dict[str, str] = {}
        for file in self._file_names():
            try:
                handle: Any = safe_open(str(folder / file), framework="pt")
                self._where |= dict.fromkeys(handle.keys(), file)
            except (SafetensorError, OSError) as error:
                raise InputError(f"{folder / file} is not readable as safetensors ({error}); copy it again") from error
            self._files[file] = handle

    def _file_names(self) -> list[str]:
        index = self.folder / _INDEX
        if index.is_file():
            places = _read_json(index).get("weight_map")
            if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
                raise InputError(f"{index}: weight_map does not say in which file each tensor is; restore the file")
            names = sorted(set(places.values()))
            for name in names:
                if not (self.folder / name).is_file():
                    raise InputError(f"{self.folder / name} does not exist but {_INDEX} names it; copy the folder again")
            return names
        single = [name for name in ("model.safetensors", "weights.safetensors") if (self.folder / name).is_file()]
        if not single:
            raise InputError(f"{self.folder} holds neither model.safetensors nor {_INDEX}; give a folder in Hugging Face layout")
        return single[:1]

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[self._where[name]].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a folder in Hugging Face layout") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); restore the file") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not an object; restore the file")
    return content


def read_hf_folder(path: str | os.PathLike[str]) -> tuple[VideoMllamaConfig, FolderWeights, dict[str, Any]]:
    """Opens a folder in the Hugging Face layout, of either format.

    Returns:
        The config (with the switches that the folder was written with), the tensors by name (lazy), and the
        `moss_train` section of config.json, empty where another program wrote the folder.

    Raises:
        InputError: a missing or broken file.
    """
    folder = Path(path)
    content = _read_json(folder / "config.json")
    section = _section(content, "moss_train", folder)
    known = {f.name for f in dataclasses.fields(SwitchConfig)}
    try:
        switches = SwitchConfig(**{k: v for k, v in _section(section, "switches", folder).items() if k in known})
        config = VideoMllamaConfig.from_hf(content, switches)
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} has a field of an unexpected form ({error}); restore the file") from error
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    return config, FolderWeights(folder), section


def _section(content: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """The object called `name`, {} where there is none."""
    value = content.get(name) or {}
    if not isinstance(value, dict):
        raise InputError(f"{name} in {folder / 'config.json'} is {value!r}, not an object; restore the file")
    return dict(value)
