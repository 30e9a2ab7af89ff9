"""The tensors of a distributed checkpoint read by rows, in one process, without a model or a process group.

A checkpoint stores a tensor as rectangles, one for each share that a rank wrote, each as a torch file of its own inside a
larger one. Plain reads fetch just the rows that are asked for.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.utils import _create_file_view

from model.conversion.stream import cut
from model.conversion.tensor_file import TensorInfo, read_into
from model.errors import InputError

_COPY_BYTES = 16 << 20
"""Buffer for rows that go into a part of the target's columns."""


@dataclass(frozen=True)
class _Rectangle:
    """One stored share of a tensor: where it lies in the whole, and where its values begin in a file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    path: Path
    position: int


class CheckpointTensors:
    """All tensors of a checkpoint folder by key.

    Raises:
        InputError: the folder's index is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata = _read_metadata(folder)
        self._rectangles: dict[str, list[_Rectangle]] = {}
        self._descriptors: dict[Path, int] = {}

    def keys(self) -> list[str]:
        """The keys of all tensors, the optimizer's included."""
        return [key for key, entry in self._metadata.state_dict_metadata.items() if isinstance(entry, TensorStorageMetadata)]

    def __contains__(self, key: str) -> bool:
        return isinstance(self._metadata.state_dict_metadata.get(key), TensorStorageMetadata)

    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of a tensor over all ranks.

        Raises:
            InputError: no such tensor.
        """
        if key not in self:
            raise InputError(f"{self.folder} lacks the parameter {key}; it is damaged or of another model")
        entry: Any = self._metadata.state_dict_metadata[key]
        return TensorInfo(tuple(entry.size), entry.properties.dtype)

    def read_rows(self, key: str, first: int, count: int) -> Tensor:
        """The rows [first, first + count) of a tensor, contiguous, on the CPU.

        Raises:
            InputError: no such tensor, or a file that is missing or cut short.
        """
        info = self.info(key)
        target = torch.empty((count, *info.shape[1:]), dtype=info.dtype)
        covered = 0
        for part in self._parts(key):
            begin, stop = max(first, part.offsets[0]), min(first + count, part.offsets[0] + part.sizes[0])
            if begin < stop:
                self._read_part(part, begin - part.offsets[0], target[begin - first : stop - first])
                covered += (stop - begin) * _area(part.sizes[1:])
        if covered != target.numel():
            raise InputError(f"{self.folder} stores only a part of {key}; use an earlier checkpoint")
        return target

    def _read_part(self, part: _Rectangle, row: int, target: Tensor) -> None:
        """Fills a rectangle's columns of `target` [n, ...] with its rows from `row` on."""
        row_bytes = _area(part.sizes[1:]) * target.element_size()
        descriptor = self._descriptor(part.path)
        if part.sizes[1:] == tuple(target.shape[1:]):
            read_into(descriptor, part.position + row * row_bytes, target, part.path)
            return
        columns = tuple(slice(o, o + n) for o, n in zip(part.offsets[1:], part.sizes[1:], strict=True))
        for begin, rows in cut(0, target.shape[0], row_bytes, _COPY_BYTES):
            piece = torch.empty((rows, *part.sizes[1:]), dtype=target.dtype)
            read_into(descriptor, part.position + (row + begin) * row_bytes, piece, part.path)
            target[(slice(begin, begin + rows), *columns)] = piece

    def _descriptor(self, path: Path) -> int:
        if path not in self._descriptors:
            try:
                self._descriptors[path] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error.strerror}); use an earlier checkpoint") from error
        return self._descriptors[path]

    def _parts(self, key: str) -> list[_Rectangle]:
        if key not in self._rectangles:
            entry: Any = self._metadata.state_dict_metadata[key]
            self._rectangles[key] = [self._locate(key, chunk, entry.properties.dtype) for chunk in entry.chunks]
        return self._rectangles[key]

    def _locate(self, key: str, chunk: Any, dtype: torch.dtype) -> _Rectangle:
        """Finds where the values of a stored share begin: fake tensors tell it without reading them."""
        stored: Any = (self._metadata.storage_data or {})[MetadataIndex(key, chunk.offsets)]
        path = self.folder / stored.relative_path
        sizes = tuple(chunk.sizes)
        descriptor = self._descriptor(path)
        with open(os.dup(descriptor), "rb") as file, FakeTensorMode():
            try:
                share: Any = _create_file_view(file, stored.offset, stored.length)
                found = torch.load(share, weights_only=True)
                offset = found.untyped_storage()._checkpoint_offset
            except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, OSError) as error:
                raise InputError(f"{path} is damaged at byte {stored.offset} ({key}); use an earlier checkpoint") from error
            # 1-D shards of prepended axes are stored with more axes than the tensor; only the values' order matters.
            sound = found.numel() == _area(sizes) and found.dtype == dtype and found.is_contiguous() and offset is not None
            start = found.storage_offset() * found.element_size()
        if not sound:
            raise InputError(f"{path} stores {key} in an unexpected form; save the checkpoint again with this version")
        return _Rectangle(tuple(chunk.offsets), sizes, path, stored.offset + offset + start)

    def close(self) -> None:
        """Closes all files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __del__(self) -> None:
        if getattr(self, "_descriptors", None):
            self.close()


def _area(sizes: tuple[int, ...]) -> int:
    area = 1
    for size in sizes:
        area *= size
    return area


def _read_metadata(folder: Path) -> Metadata:
    try:
        return FileSystemReader(folder).read_metadata()
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError, IndexError, KeyError, ValueError) as error:
        raise InputError(f"{folder} cannot be read ({type(error).__name__}: {error}); use an earlier checkpoint") from None
