"""Reading a checkpoint folder: config.json and safetensors, one file or many behind an index."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from model.config import SwitchConfig, VideoMllamaConfig
from model.errors import InputError

_INDEX = "model.safetensors.index.json"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: the file is missing, is not JSON or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a folder in Hugging Face layout (see `moss convert to-hf`)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); check the file") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON (line {error.lineno}: {error.msg}); restore the file") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not an object; restore the file")
    return content


def read_config(folder: Path, switches: SwitchConfig | None) -> tuple[VideoMllamaConfig, dict[str, Any]]:
    """Dimensions of the checkpoint and its `moss_train` section (empty where another program wrote it).

    Args:
        switches: numerical choices; None takes those that the folder was written with, or the defaults.
    """
    content = read_json(folder / "config.json")
    details = _section(content, "moss_train", folder)
    for name in ("switches", "frames"):
        _section(details, name, folder)
    try:
        if switches is None:
            known = {f.name for f in dataclasses.fields(SwitchConfig)}
            switches = SwitchConfig(**{name: value for name, value in (details.get("switches") or {}).items() if name in known})
        config = VideoMllamaConfig.from_hf(content, switches)
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} has a field of an unexpected form ({error}); restore the file") from error
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    return config, details


def _section(content: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """The object called `name`, {} where there is none."""
    value = content.get(name) or {}
    if not isinstance(value, dict):
        raise InputError(f"{name} in {folder / 'config.json'} is {value!r}, not an object; restore the file")
    return dict(value)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        InputError: none there, or one that the index names is missing.
    """
    if (folder / _INDEX).exists():
        places = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise InputError(f"{folder / _INDEX}: weight_map does not say in which file each tensor is; restore the file")
        names = sorted(set(places.values()))
        for name in names:
            if not (folder / name).is_file():
                raise InputError(f"{folder / name} does not exist but {_INDEX} names it; download or convert the folder again")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1 and (folder / "model.safetensors").exists():
        files = [folder / "model.safetensors"]
    if len(files) != 1:
        raise InputError(
            f"{folder} holds {len(files)} safetensors files and no {_INDEX}; a checkpoint has model.safetensors or an index"
        )
    return files


def iterate_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """All (name, tensor) pairs of a checkpoint, read one at a time."""
    for path in weight_files(folder):
        try:
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a readable safetensors file ({error}); copy or convert it again") from error


class OpenTensors(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint by name, each read when it is asked for, as fp32 copies of the caller's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, Any] = {}
        for path in weight_files(folder):
            try:
                file: Any = safe_open(str(path), framework="pt")
                self._where |= dict.fromkeys(file.keys(), file)
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} is not a readable safetensors file ({error}); copy or convert it again") from error

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._where:
            raise InputError(f"{self.folder} lacks the tensor {name}; convert or download it again")
        tensor: torch.Tensor = self._where[name].get_tensor(name)
        return tensor.float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)
