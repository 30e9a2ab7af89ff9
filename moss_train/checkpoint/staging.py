"""A copy of a rank's pieces in host memory, so that training goes on while they are written."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from model.conversion.tensor_file import scratch
from model.page_lock import lock_pages
from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.rank_files import RankFiles

_ALIGNMENT = 64
"""Bytes: every piece begins at a multiple in the buffer."""


class Staging:
    """Host memory that is made once and used for every checkpoint of a run; page-locked where it is filled from a GPU."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._locked = False

    @property
    def num_bytes(self) -> int:
        """Bytes of host memory held."""
        return 0 if self._buffer is None else self._buffer.numel()

    def stage(self, files: RankFiles) -> RankFiles:
        """Copy all pieces; the result does not change when the run goes on. The copy before is overwritten.

        Args:
            files: with values where they live.
        """
        places, size = _places(files)
        on_gpu = any(piece.values.is_cuda for piece in files.pieces)
        buffer = self.reserve(size, lock=on_gpu)
        staged = [self._copy(piece, buffer, place) for piece, place in zip(files.pieces, places, strict=True)]
        if on_gpu:
            torch.cuda.current_stream().synchronize()
        return dataclasses.replace(files, pieces=staged)

    @staticmethod
    def size_of(files: RankFiles) -> int:
        """Bytes that a copy of these files takes."""
        return _places(files)[1]

    def reserve(self, num_bytes: int, *, lock: bool) -> Tensor:
        """The buffer, uint8, of at least so many bytes."""
        if self._buffer is None or self._buffer.numel() < num_bytes or (lock and not self._locked):
            self.release()
            self._buffer = scratch((max(1, num_bytes),), torch.uint8)
            if lock:
                self._locked = lock_pages(self._buffer)
        return self._buffer

    def release(self) -> None:
        """Give the memory back."""
        if self._buffer is not None and self._locked:
            torch.cuda.cudart().cudaHostUnregister(self._buffer.data_ptr())
        self._buffer, self._locked = None, False

    @staticmethod
    def _copy(piece: Piece, buffer: Tensor, place: int) -> Piece:
        own = buffer[place : place + piece.num_bytes].view(piece.values.dtype)
        own.copy_(piece.values.detach().reshape(-1), non_blocking=True)
        return dataclasses.replace(piece, values=own)


def _places(files: RankFiles) -> tuple[list[int], int]:
    """Where each piece begins in the buffer, and how long it has to be."""
    places, size = [], 0
    for piece in files.pieces:
        places.append(size)
        size += -(-piece.num_bytes // _ALIGNMENT) * _ALIGNMENT
    return places, size
