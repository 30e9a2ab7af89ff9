"""Safetensors files read and written in pieces, with plain reads and writes.

The library maps a file into memory or takes whole tensors; a conversion needs rows of tensors of any size in a buffer of its
own. The format: eight bytes (length of the header, little endian), the header in JSON, the tensors' bytes.
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import InputError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorInfo:
    """Shape and dtype of a tensor that is not in memory."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one step along the first axis; of the whole tensor where it has no axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def scratch(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor whose memory goes back to the system as soon as the tensor is gone.

    The C library keeps freed blocks of up to 32 MiB for itself, in pieces that the next ones may not fit into.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < mmap.PAGESIZE:
        return torch.empty(tuple(shape), dtype=dtype)
    private = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(private, dtype=dtype).view(tuple(shape))


def bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    """The memory of a contiguous tensor on the CPU, without a copy."""
    view: NDArray[np.uint8] = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return view


def read_into(descriptor: int, offset: int, target: Tensor, path: Path) -> None:
    """Fills a contiguous tensor with the bytes of a file from `offset` on.

    Raises:
        InputError: the file ends before.
    """
    rest = memoryview(bytes_of(target).data)
    while len(rest):
        count = os.preadv(descriptor, [rest], offset)
        if count == 0:
            raise InputError(f"{path} ends at byte {offset}, in the middle of a tensor; copy the file again")
        rest, offset = rest[count:], offset + count


class TensorFile:
    """The tensors of one safetensors file.

    Raises:
        InputError: no such file, or none in this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.infos: dict[str, TensorInfo] = {}
        self._offsets: dict[str, int] = {}
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path} is not readable as safetensors ({error.strerror}); copy it again") from error
        try:
            self._read_header()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.close()
            raise InputError(f"{path} is not readable as safetensors ({error}); copy it again") from error

    def _read_header(self) -> None:
        size = os.fstat(self._descriptor).st_size
        length = int.from_bytes(os.pread(self._descriptor, 8, 0), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise ValueError("its header does not fit into it")
        header = json.loads(os.pread(self._descriptor, length, 8))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in DTYPES:
                raise ValueError(f"{name} has the dtype {entry['dtype']}, which is not supported")
            info = TensorInfo(tuple(entry["shape"]), DTYPES[entry["dtype"]])
            begin, end = entry["data_offsets"]
            if end - begin != info.num_bytes:
                raise ValueError(f"{name} has {end - begin} bytes, its shape asks for {info.num_bytes}")
            if begin < 0 or 8 + length + end > size:
                raise ValueError(f"it ends before {name}: it was cut short")
            self.infos[name] = info
            self._offsets[name] = 8 + length + begin

    def read_rows(self, name: str, first: int, target: Tensor) -> None:
        """Fills `target` [n, ...] with the rows from `first` on of a tensor that has the same trailing sizes and dtype."""
        read_into(self._descriptor, self._offsets[name] + first * self.infos[name].row_bytes, target, self.path)

    def close(self) -> None:
        """Closes the file; reading is over."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()


class TensorFileWriter:
    """Writes one safetensors file whose tensors are known before their values.

    Tensors are written one behind the other in the order of `order`, each in as many pieces as you like.
    """

    def __init__(self, path: Path, infos: Mapping[str, TensorInfo]) -> None:
        # Larger elements first, so that every tensor begins at a multiple of its element's size.
        self.order = sorted(infos, key=lambda name: -infos[name].dtype.itemsize)
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in self.order:
            info = infos[name]
            begin, end = end, end + info.num_bytes
            header[name] = {"dtype": _NAMES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.path, self._size = path, 8 + len(text) + end
        self._file = path.open("wb", buffering=0)
        self._write(len(text).to_bytes(8, "little"))
        self._write(text)

    def _write(self, data: Any) -> None:
        rest = memoryview(data)
        while len(rest):
            rest = rest[self._file.write(rest) :]

    def write(self, piece: Tensor) -> None:
        """Appends the bytes of a contiguous tensor."""
        self._write(bytes_of(piece))

    def write_bytes(self, part: memoryview) -> None:
        """Appends a part of a contiguous tensor's bytes."""
        self._write(part)

    @property
    def position(self) -> int:
        """Bytes written so far, the header's included."""
        return self._file.tell()

    def __enter__(self) -> TensorFileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            written = self._file.tell()
            assert written == self._size, f"{self.path} has {written} bytes, its header says {self._size}"
            os.fsync(self._file.fileno())
        self._file.close()


Blocks = Callable[[], Iterable[Tensor]]
"""Makes the values of a tensor, in row-major order, in one piece or several."""


@dataclass(frozen=True)
class StreamedTensor:
    """A tensor that is made piece by piece when it is written."""

    info: TensorInfo
    blocks: Blocks

    @classmethod
    def of(cls, tensor: Tensor) -> StreamedTensor:
        """A tensor that is in memory already."""
        return cls(TensorInfo(tuple(tensor.shape), tensor.dtype), lambda: [tensor.detach().cpu().contiguous()])


def write_tensor_file(path: Path, tensors: Mapping[str, StreamedTensor]) -> None:
    """Writes a whole safetensors file, with no more than one block in memory."""
    with TensorFileWriter(path, {name: tensor.info for name, tensor in tensors.items()}) as file:
        for name in file.order:
            for block in tensors[name].blocks():
                file.write(block)
