"""The index of a checkpoint: which rectangle of which tensor lies where in which file, with its checksum."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.conversion.tensor_file import DTYPES, TensorInfo
from model.errors import InputError

INDEX = "index.json"
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredPiece:
    """A rectangle of a tensor inside a file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    position: int
    """Its first byte in the file; its values follow in row-major order."""
    crc32: int

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.sizes)


@dataclass
class StoredTensor:
    """A tensor and its pieces."""

    info: TensorInfo
    pieces: list[StoredPiece] = field(default_factory=list)


@dataclass
class Index:
    """What one rank has written, or all of them."""

    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    """Bytes of each file of tensors."""
    objects: dict[str, str] = field(default_factory=dict)
    """The file of each small object that a module wants back, by its key."""
    small: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes and crc32 of every other file."""

    def add(self, key: str, info: TensorInfo, piece: StoredPiece) -> None:
        """Enter a piece.

        Raises:
            ValueError: another shape or dtype than the tensor's pieces so far.
        """
        tensor = self.tensors.setdefault(key, StoredTensor(info))
        if tensor.info != info:
            raise ValueError(f"{key} is {info} in {piece.file} and {tensor.info} elsewhere")
        tensor.pieces.append(piece)

    def merge(self, other: Index) -> None:
        """Enter all that another index holds.

        Raises:
            ValueError: the two do not agree on a tensor.
        """
        for key, tensor in other.tensors.items():
            for piece in tensor.pieces:
                self.add(key, tensor.info, piece)
        self.files |= other.files
        self.objects |= other.objects
        self.small |= other.small

    def check_whole(self) -> None:
        """Compare the pieces of every tensor with its size.

        Raises:
            ValueError: pieces are missing, or there are too many.
        """
        for key, tensor in self.tensors.items():
            stored, expected = sum(piece.count for piece in tensor.pieces), math.prod(tensor.info.shape)
            if stored != expected:
                raise ValueError(f"the pieces of {key} have {stored} elements, its shape {list(tensor.info.shape)} {expected}")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "tensors": {
                key: {
                    "shape": list(tensor.info.shape),
                    "dtype": _NAMES[tensor.info.dtype],
                    "pieces": [[p.offsets, p.sizes, p.file, p.position, p.crc32] for p in tensor.pieces],
                }
                for key, tensor in self.tensors.items()
            },
            "files": self.files,
            "objects": self.objects,
            "small": self.small,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Index:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError: other values than `to_json` gives.
        """
        tensors = {}
        for key, entry in values["tensors"].items():
            pieces = [
                StoredPiece(tuple(offsets), tuple(sizes), str(file), int(position), int(crc32))
                for offsets, sizes, file, position, crc32 in entry["pieces"]
            ]
            tensors[key] = StoredTensor(TensorInfo(tuple(entry["shape"]), dtype_named(entry["dtype"])), pieces)
        small = {name: (int(size), int(crc32)) for name, (size, crc32) in values["small"].items()}
        return cls(tensors, dict(values["files"]), dict(values["objects"]), small)


def dtype_named(name: str) -> torch.dtype:
    """`torch.bfloat16` for BF16."""
    return DTYPES[name]


def rank_index_name(rank: int) -> str:
    """`rank_00003.json` for 3."""
    return f"rank_{rank:05d}.json"


def read_index(path: Path) -> Index:
    """Read an index file.

    Raises:
        InputError: no such file, or damaged.
    """
    try:
        return Index.from_json(json.loads(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); use an earlier checkpoint") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); use an earlier checkpoint") from None


def merged(indices: Iterable[Index]) -> Index:
    """One index of the indices of all ranks.

    Raises:
        ValueError: they do not make whole tensors.
    """
    whole = Index()
    for index in indices:
        whole.merge(index)
    whole.check_whole()
    return whole


def checksum_of_file(path: Path, block_bytes: int = 16 << 20) -> tuple[int, int]:
    """Bytes and crc32 of a file.

    Raises:
        OSError: it cannot be read.
    """
    size, crc32 = 0, 0
    with path.open("rb") as file:
        while block := file.read(block_bytes):
            size, crc32 = size + len(block), zlib.crc32(block, crc32)
    return size, crc32
