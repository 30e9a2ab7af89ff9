"""A distributed checkpoint written tensor by tensor, in one process, without a model or a process group.

torch's own writer keeps every tensor that it has written until the file is closed, and megatron-core's collects all of
them first; a model larger than the memory needs one that lets go. The files are the same kind: torch files one behind the
other, and an index (`.metadata`) that says which rectangle of which tensor begins where.
"""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from model.conversion.tensor_file import TensorInfo

FILE_BYTES = 4 << 30

_BACKEND = {"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}


class _Stream(io.RawIOBase):
    """What torch.save writes to: keeps the error of the disk, for which torch substitutes one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        size = len(rest)
        try:
            while len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
            raise
        return size


class CheckpointTensorWriter:
    """Writes the tensors of a checkpoint into a folder; on leaving the context the index is written, unless by an error.

    Args:
        folder: an empty folder.
        file_bytes: a file is closed when it has grown to this size.
    """

    def __init__(self, folder: Path, file_bytes: int = FILE_BYTES) -> None:
        self._folder, self._file_bytes = folder, file_bytes
        self._entries: dict[str, Any] = {}
        self._places: dict[MetadataIndex, _StorageInfo] = {}
        self._files = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> CheckpointTensorWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._close_file(sync=True)
                self._write_index()
        finally:
            self._close_file(sync=False)

    def write_tensor(self, key: str, info: TensorInfo, blocks: Iterable[Tensor]) -> None:
        """Writes one tensor as blocks of rows.

        Args:
            key: its key.
            info: shape and dtype of the whole.
            blocks: contiguous [n, ...], in the order of the rows, which they cover.
        """
        chunks: list[ChunkStorageMetadata] = []
        row = 0
        for block in blocks:
            offsets = torch.Size((row, *[0] * (len(info.shape) - 1)))
            self._save(MetadataIndex(key, offsets, len(chunks)), block)
            chunks.append(ChunkStorageMetadata(offsets=offsets, sizes=block.shape))
            row += block.shape[0]
            del block  # the next one is made before this name is bound to it
        assert row == info.shape[0], f"{key}: {row} rows were given, {info.shape[0]} announced"
        properties = TensorProperties(dtype=info.dtype)
        self._entries[key] = TensorStorageMetadata(properties=properties, size=torch.Size(info.shape), chunks=chunks)

    def write_nothing(self, key: str) -> None:
        """Writes the state, which is None, of an object that a module asks for when it is loaded."""
        self._save(MetadataIndex(key), [None])
        self._entries[key] = BytesStorageMetadata()

    def _save(self, index: MetadataIndex, value: Any) -> None:
        if self._file is None or self._file.tell() >= self._file_bytes:
            self._close_file(sync=True)
            self._file = (self._folder / f"__0_{self._files}.distcp").open("wb", buffering=0)
            self._files += 1
        stream, offset = _Stream(self._file), self._file.tell()
        target: Any = stream
        try:
            torch.save(value, target)
        except RuntimeError:
            if stream.error is not None:
                raise stream.error from None
            raise
        name = Path(self._file.name).name
        self._places[index] = _StorageInfo(name, offset, self._file.tell() - offset)

    def _close_file(self, *, sync: bool) -> None:
        if self._file is not None:
            if sync:
                os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _write_index(self) -> None:
        metadata = Metadata(state_dict_metadata=self._entries, storage_data=self._places, version=CURRENT_DCP_VERSION)
        with (self._folder / ".metadata").open("wb") as file:
            pickle.dump(metadata, file)
            file.flush()
            os.fsync(file.fileno())
        torch.save({}, self._folder / "common.pt")
        (self._folder / "metadata.json").write_text(json.dumps(_BACKEND))
