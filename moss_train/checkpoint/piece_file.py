"""Writes rectangles of tensors into safetensors files, with a checksum for each."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model.conversion.tensor_file import Blocks, TensorFileWriter, TensorInfo, bytes_of
from moss_train.checkpoint.blocks import host_blocks
from moss_train.checkpoint.index import Index, StoredPiece
from moss_train.checkpoint.piece import Piece

FILE_BYTES = 4 << 30
_BLOCK_BYTES = 8 << 20
"""Written at once: still in the processor's cache after its checksum was taken."""

_SMALL_FILE_BYTES = 64 << 20
"""No file is made smaller than this to have one for every writer."""


@dataclass(frozen=True)
class Outgoing:
    """A piece whose values are made when it is written."""

    key: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    offsets: tuple[int, ...]
    info: TensorInfo
    """Of the piece."""
    blocks: Blocks
    """Its values on the CPU, contiguous, in row-major order, in one part or several."""

    @property
    def name(self) -> str:
        """Its name inside the file."""
        return f"{self.key}@{','.join(map(str, self.offsets))}"

    @classmethod
    def of(cls, piece: Piece) -> Outgoing:
        """A piece in memory, which is copied to the host block by block when it is written."""
        info = TensorInfo(piece.sizes, piece.values.dtype)
        return cls(piece.key, piece.shape, piece.offsets, info, lambda: host_blocks(piece.values))


def write_piece_file(path: Path, pieces: Sequence[Outgoing]) -> Index:
    """Write one file and leave nothing of it in buffers.

    Raises:
        OSError: the disk refuses it.
    """
    index = Index()
    by_name = {piece.name: piece for piece in pieces}
    with TensorFileWriter(path, {name: piece.info for name, piece in by_name.items()}) as file:
        for name in file.order:
            piece, position, crc32 = by_name[name], file.position, 0
            for block in piece.blocks():
                content = bytes_of(block)
                for begin in range(0, content.size, _BLOCK_BYTES):
                    part = content[begin : begin + _BLOCK_BYTES].data
                    crc32 = zlib.crc32(part, crc32)
                    file.write_bytes(part)
            stored = StoredPiece(piece.offsets, piece.info.shape, path.name, position, crc32)
            index.add(piece.key, TensorInfo(piece.shape, piece.info.dtype), stored)
        index.files[path.name] = file.position
    return index


def split_into_files(pieces: Sequence[Outgoing], file_bytes: int) -> list[list[Outgoing]]:
    """Pieces in order, in groups of at most `file_bytes` unless a single one is larger."""
    groups: list[list[Outgoing]] = []
    size = 0
    for piece in pieces:
        if not groups or size + piece.info.num_bytes > file_bytes:
            groups.append([])
            size = 0
        groups[-1].append(piece)
        size += piece.info.num_bytes
    return groups


def write_rank_files(
    folder: Path, rank: int, pieces: Sequence[Outgoing], *, file_bytes: int = FILE_BYTES, writers: int = 1
) -> Index:
    """Write `rank_00003_000.safetensors` and as many more as it takes.

    Args:
        folder: where.
        rank: whose.
        pieces: what.
        file_bytes: a file is closed when it would grow beyond.
        writers: files written at the same time.

    Raises:
        OSError: the disk refuses one of them.
    """
    total = sum(piece.info.num_bytes for piece in pieces)
    groups = split_into_files(pieces, min(file_bytes, max(_SMALL_FILE_BYTES, -(-total // writers))))
    paths = [folder / f"rank_{rank:05d}_{number:03d}.safetensors" for number in range(len(groups))]
    index = Index()
    if min(writers, len(groups)) <= 1:  # in the caller's thread: an interrupt ends it at once, and nothing writes on behind it
        for path, group in zip(paths, groups, strict=True):
            index.merge(write_piece_file(path, group))
        return index
    with ThreadPoolExecutor(min(writers, len(groups)), thread_name_prefix="checkpoint") as pool:
        parts = [pool.submit(write_piece_file, path, group) for path, group in zip(paths, groups, strict=True)]
        try:
            for part in parts:
                index.merge(part.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # files that are not begun are not written for nothing
            raise
    return index
