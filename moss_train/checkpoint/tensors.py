"""The tensors of a checkpoint read by rectangles, in one process, without a model or a process group.

A checkpoint stores a tensor as rectangles, one or a few for each share that a rank wrote. Plain reads fetch just what is
asked for, whatever layout wrote it.
"""

from __future__ import annotations

import math
import os
import threading
import zlib
from pathlib import Path

from torch import Tensor

from model.conversion.stream import cut
from model.conversion.tensor_file import TensorInfo, read_into, scratch
from model.errors import InputError
from moss_train.checkpoint.description import read_description
from moss_train.checkpoint.index import INDEX, Index, StoredPiece, read_index
from moss_train.checkpoint.piece import Box, common_box

_COPY_BYTES = 16 << 20
"""Buffer for rows that go into a part of the target's columns, and for checksums."""


class CheckpointTensors:
    """All tensors of a checkpoint folder by key; may be read by several threads.

    Args:
        folder: the checkpoint.
        verify: compare the checksum of a stored rectangle when it is read from for the first time.

    Raises:
        InputError: the folder's index is missing or broken.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        self.folder = folder
        read_description(folder)  # says in one sentence what is no checkpoint, or one of another version
        self.index: Index = read_index(folder / INDEX)
        self._unverified = {id(piece) for tensor in self.index.tensors.values() for piece in tensor.pieces} if verify else set()
        self._descriptors: dict[str, int] = {}
        self._lock = threading.Lock()

    def keys(self) -> list[str]:
        """The keys of all tensors, the optimizer's included."""
        return list(self.index.tensors)

    def __contains__(self, key: str) -> bool:
        return key in self.index.tensors

    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of a tensor over all ranks.

        Raises:
            InputError: no such tensor.
        """
        if key not in self:
            raise InputError(f"{self.folder} lacks the parameter {key}; it is damaged or of another model")
        return self.index.tensors[key].info

    def read_rows(self, key: str, first: int, count: int) -> Tensor:
        """The rows [first, first + count) of a tensor, contiguous, on the CPU.

        Raises:
            InputError: no such tensor, or a file that is missing, cut short or changed.
        """
        info = self.info(key)
        rest = info.shape[1:]
        target = scratch((count, *rest), info.dtype)
        self.read_box(key, ((first, *[0] * len(rest)), (count, *rest)), target)
        return target

    def read_box(self, key: str, box: Box, target: Tensor) -> None:
        """Fill a tensor with a rectangle of a stored one.

        Args:
            key: the stored tensor.
            box: the rectangle, inside its shape.
            target: contiguous, on the CPU, of the stored dtype and the rectangle's sizes.

        Raises:
            InputError: no such tensor, or a file that is missing, cut short or changed.
        """
        self.info(key)
        covered = 0
        for piece in self.index.tensors[key].pieces:
            shared = common_box((piece.offsets, piece.sizes), box)
            if shared is not None:
                self._check(key, piece, target.element_size())
                inside = tuple(slice(o - b, o - b + n) for o, b, n in zip(shared[0], box[0], shared[1], strict=True))
                self._read_part(piece, shared, target[inside])
                covered += math.prod(shared[1])
        if covered != target.numel():
            raise InputError(f"{self.folder} stores only a part of {key}; use an earlier checkpoint")

    def _read_part(self, piece: StoredPiece, box: Box, target: Tensor) -> None:
        """Fills `target`, which has the sizes of `box`, with that part of a stored piece."""
        path, descriptor, element = self.folder / piece.file, self._descriptor(piece.file), target.element_size()
        if not piece.sizes:
            read_into(descriptor, piece.position, target, path)
            return
        row_bytes = math.prod(piece.sizes[1:]) * element
        first = box[0][0] - piece.offsets[0]
        if box[1][1:] == piece.sizes[1:] and target.is_contiguous():
            read_into(descriptor, piece.position + first * row_bytes, target, path)
            return
        columns = tuple(slice(o - p, o - p + n) for o, p, n in zip(box[0][1:], piece.offsets[1:], box[1][1:], strict=True))
        for begin, rows in cut(0, target.shape[0], row_bytes, _COPY_BYTES):
            part = scratch((rows, *piece.sizes[1:]), target.dtype)
            read_into(descriptor, piece.position + (first + begin) * row_bytes, part, path)
            target[begin : begin + rows] = part[(slice(None), *columns)]

    def _check(self, key: str, piece: StoredPiece, element_size: int) -> None:
        """Compares a piece with its checksum, once.

        Raises:
            InputError: they differ.
        """
        with self._lock:  # several threads may want it at once
            if id(piece) not in self._unverified:
                return
            check_piece(self._descriptor_held(piece.file), self.folder / piece.file, key, piece, element_size)
            self._unverified.discard(id(piece))

    def _descriptor(self, file: str) -> int:
        with self._lock:
            return self._descriptor_held(file)

    def _descriptor_held(self, file: str) -> int:
        if file not in self._descriptors:
            path = self.folder / file
            try:
                self._descriptors[file] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error.strerror}); use an earlier checkpoint") from error
        return self._descriptors[file]

    def close(self) -> None:
        """Closes all files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __del__(self) -> None:
        if getattr(self, "_descriptors", None):
            self.close()


def check_piece(descriptor: int, path: Path, key: str, piece: StoredPiece, element_size: int) -> None:
    """Compare a stored piece with its checksum.

    Raises:
        InputError: they differ, or the file ends before.
    """
    end, crc32, position = piece.position + piece.count * element_size, 0, piece.position
    buffer = bytearray(min(_COPY_BYTES, max(1, end - position)))
    while position < end:
        view = memoryview(buffer)[: end - position]
        count = os.preadv(descriptor, [view], position)
        if count == 0:
            raise InputError(f"{path} is cut short: it ends at byte {position}, inside {key}; use an earlier checkpoint")
        crc32, position = zlib.crc32(view[:count], crc32), position + count
    if crc32 != piece.crc32:
        raise InputError(
            f"{path} is damaged: {key}, bytes {piece.position} to {end}, does not have the checksum that it was written with; "
            "copy the checkpoint again or use an earlier one"
        )
