"""Folders in the Hugging Face layout, opened: config, and tensors read when asked for, whole or by rows."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import SwitchConfig, VideoMllamaConfig
from model.conversion.tensor_file import TensorFile, TensorInfo
from model.errors import InputError

INDEX = "model.safetensors.index.json"
_IGNORED_ENDINGS = ("rotary_emb.inv_freq",)
"""Buffers that some programs store and every reader computes."""


class FolderWeights(Mapping[str, Tensor]):
    """The tensors of a folder by name, each read from disk when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._where: dict[str, TensorFile] = {}
        for name in self._file_names():
            file = TensorFile(folder / name)
            self._where |= {tensor: file for tensor in file.infos if not tensor.endswith(_IGNORED_ENDINGS)}

    def _file_names(self) -> list[str]:
        index = self.folder / INDEX
        if index.is_file():
            places = read_json(index).get("weight_map")
            if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
                raise InputError(f"{index}: weight_map does not say in which file each tensor is; restore the file")
            names = sorted(set(places.values()))
            for name in names:
                if not (self.folder / name).is_file():
                    raise InputError(f"{self.folder / name} does not exist but {INDEX} names it; copy the folder again")
            return names
        single = [name for name in ("model.safetensors", "weights.safetensors") if (self.folder / name).is_file()]
        if not single:
            raise InputError(f"{self.folder} holds neither model.safetensors nor {INDEX}; give a folder in Hugging Face layout")
        return single[:1]

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype of a tensor, without reading it."""
        return self._where[name].infos[name]

    def read_rows(self, name: str, first: int, target: Tensor) -> None:
        """Fills `target` [n, ...] with the rows from `first` on."""
        self._where[name].read_rows(name, first, target)

    def __getitem__(self, name: str) -> Tensor:
        info = self.info(name)
        tensor = torch.empty(info.shape, dtype=info.dtype)
        self.read_rows(name, 0, tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: missing, broken, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
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
    content = read_json(folder / "config.json")
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
