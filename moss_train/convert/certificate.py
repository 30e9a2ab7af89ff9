"""What a conversion leaves as evidence: `certificate.json` with the hash of every tensor and the outcome of its checks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.folder import read_json
from model.conversion.table import TABLE_VERSION
from model.conversion.tensor_file import TensorInfo, bytes_of
from moss_train.checkpoint.description import write_atomically

NAME = "certificate.json"
FORMAT = 1
_PACKAGES = ("moss-train", "torch", "megatron-core", "safetensors", "numpy")


class Hashes:
    """sha256 of the bytes of tensors that pass by in pieces, by published name."""

    def __init__(self) -> None:
        self._running: dict[str, Any] = {}

    def update(self, name: str, piece: Tensor) -> None:
        """The next contiguous piece of a tensor, in row-major order."""
        self._running.setdefault(name, hashlib.sha256()).update(bytes_of(piece).data)

    def passing(self, name: str, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same pieces, hashed while they pass."""
        for piece in pieces:
            self.update(name, piece)
            yield piece

    def digests(self) -> dict[str, str]:
        """Name to sha256, in hexadecimal."""
        return {name: running.hexdigest() for name, running in self._running.items()}


def digest_of(hashes: Mapping[str, str]) -> str:
    """One sha256 for all tensors, whatever their order."""
    lines = "".join(f"{name} {value}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def config_digest(config: VideoMllamaConfig) -> str:
    """sha256 of the dimensions of a model; the numerical switches are no property of the weights."""
    values = {section: dataclasses.asdict(getattr(config, section)) for section in ("vision", "text")}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def make_certificate(
    source: Path, target: Path, direction: str, config: VideoMllamaConfig, infos: Mapping[str, TensorInfo],
    hashes: Mapping[str, str], *, adapters_merged: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The content of `certificate.json`; its `verification` is empty until the conversion has been verified.

    Args:
        source, target: where the weights came from and went to.
        direction: from-hf | to-hf.
        config: the model.
        infos: shape and dtype of every published tensor.
        hashes: sha256 of the published bytes of every tensor.
        adapters_merged: whether low-rank adapters went into the weights.
    """
    dtypes = Counter(str(info.dtype).removeprefix("torch.") for info in infos.values())
    return {
        "format": FORMAT,
        "direction": direction,
        "source": str(source),
        "target": str(target),
        "table_version": TABLE_VERSION,
        "tensors": len(infos),
        "parameters": sum(math.prod(info.shape) for info in infos.values()),
        "bytes": sum(info.num_bytes for info in infos.values()),
        "dtypes": dict(dtypes),
        "config_sha256": config_digest(config),
        "adapters_merged": adapters_merged,
        "versions": _versions(),
        "sha256": digest_of(hashes),
        "verification": None,
        "hashes": dict(hashes),
    }


def write_certificate(folder: Path, certificate: Mapping[str, Any]) -> None:
    """Writes it into a folder of weights."""
    write_atomically(folder / NAME, json.dumps(certificate, indent=1) + "\n")


def read_certificate(folder: Path) -> dict[str, Any] | None:
    """The certificate of a folder of weights, None where it has none.

    Raises:
        InputError: the file is broken.
    """
    return read_json(folder / NAME) if (folder / NAME).is_file() else None
