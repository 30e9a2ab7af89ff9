"""The tensors of a distributed checkpoint read by rows, in one process, without a model or a process group.

A checkpoint stores a tensor as rectangles, one for each share that a rank wrote, each as a torch file of its own inside a
larger one. Plain reads fetch just the rows that are asked for.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, TensorStorageMetadata

from model.conversion.stream import cut
from model.conversion.tensor_file import TensorInfo, read_into, scratch
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
        target = scratch((count, *info.shape[1:]), info.dtype)
        covered = 0
        for part in self._parts(key):
            begin, stop = max(first, part.offsets[0]), min(first + count, part.offsets[0] + part.sizes[0])
            if begin < stop:
                self._read_part(part, begin - part.offsets[0], target[begin - first : stop - first])
                covered += (stop - begin) * math.prod(part.sizes[1:])
        if covered != target.numel():
            raise InputError(f"{self.folder} stores only a part of {key}; use an earlier checkpoint")
        return target

    def _read_part(self, part: _Rectangle, row: int, target: Tensor) -> None:
        """Fills a rectangle's columns of `target` [n, ...] with its rows from `row` on."""
        row_bytes = math.prod(part.sizes[1:]) * target.element_size()
        descriptor = self._descriptor(part.path)
        if part.sizes[1:] == tuple(target.shape[1:]):
            read_into(descriptor, part.position + row * row_bytes, target, part.path)
            return
        columns = tuple(slice(o, o + n) for o, n in zip(part.offsets[1:], part.sizes[1:], strict=True))
        for begin, rows in cut(0, target.shape[0], row_bytes, _COPY_BYTES):
            piece = scratch((rows, *part.sizes[1:]), target.dtype)
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
        """Finds where the values of a stored share begin, without reading them."""
        stored: Any = (self._metadata.storage_data or {})[MetadataIndex(key, chunk.offsets)]
        path, sizes = self.folder / stored.relative_path, tuple(chunk.sizes)
        share = _Share(self._descriptor(path), stored.offset, stored.length)
        try:
            position = _position_of_values(share, math.prod(sizes) * dtype.itemsize, dtype)
        except (OSError, EOFError, KeyError, ValueError, struct.error, zipfile.BadZipFile, pickle.UnpicklingError) as error:
            raise InputError(f"{path} is damaged at byte {stored.offset} ({key}: {error}); use an earlier checkpoint") from error
        return _Rectangle(tuple(chunk.offsets), sizes, path, stored.offset + position)

    def close(self) -> None:
        """Closes all files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __del__(self) -> None:
        if getattr(self, "_descriptors", None):
            self.close()


class _Share(io.RawIOBase):
    """A part of an open file as a file of its own."""

    def __init__(self, descriptor: int, begin: int, length: int) -> None:
        self._descriptor, self._begin, self._length, self._place = descriptor, begin, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise OSError(f"seek to {base + offset}")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._length - self._place)]
        count = os.preadv(self._descriptor, [view], self._begin + self._place) if len(view) else 0
        self._place += count
        return count


class _Description(pickle.Unpickler):
    """Reads what torch.save says of one tensor, and refuses everything else; builds nothing."""

    def persistent_load(self, pid: Any) -> Any:
        return pid

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: arguments[:4]  # storage, offset, sizes, strides
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} where a tensor is expected")


def _position_of_values(share: _Share, expected: int, dtype: torch.dtype) -> int:
    """Where the values of a tensor that torch.save wrote begin in its file, which is an uncompressed zip archive.

    Raises:
        ValueError: it is no contiguous tensor of this dtype with `expected` bytes.
    """
    with zipfile.ZipFile(cast(Any, share)) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        storage, offset, sizes, strides = _Description(io.BytesIO(archive.read(names["data.pkl"]))).load()
        values = archive.getinfo(names[f"data/{storage[2]}"])
    contiguous = torch.empty(sizes, device="meta").stride()
    # The stride of an axis of one element says nothing.
    in_order = all(size == 1 or ours == plain for size, ours, plain in zip(sizes, strides, contiguous, strict=True))
    if storage[1] != _storage_name(dtype) or not in_order or values.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"stored as {storage[1]} with the strides {list(strides)}")
    if math.prod(sizes) * dtype.itemsize != expected or offset * dtype.itemsize + expected > values.file_size:
        raise ValueError(f"{values.file_size} bytes where {expected} belong")
    share.seek(values.header_offset)
    # A local header: 26 bytes, two lengths, the name, and an extra field that aligns the values.
    name_length, extra_length = struct.unpack("<26xHH", share.read(30))
    return int(values.header_offset) + 30 + int(name_length) + int(extra_length) + int(offset) * dtype.itemsize


def _storage_name(dtype: torch.dtype) -> str:
    names = {torch.float32: "FloatStorage", torch.bfloat16: "BFloat16Storage", torch.float16: "HalfStorage"}
    return names.get(dtype, str(dtype))


def _read_metadata(folder: Path) -> Metadata:
    try:
        return FileSystemReader(folder).read_metadata()
    except (OSError, EOFError, pickle.UnpicklingError, AttributeError, ImportError, IndexError, KeyError, ValueError) as error:
        raise InputError(f"{folder} cannot be read ({type(error).__name__}: {error}); use an earlier checkpoint") from None
