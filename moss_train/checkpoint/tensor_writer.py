"""The tensors of a checkpoint written one by one, in one process, without a model or a process group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model.conversion.tensor_file import StreamedTensor
from moss_train.checkpoint.index import Index
from moss_train.checkpoint.piece_file import FILE_BYTES, Outgoing, write_rank_files


def write_tensors(folder: Path, tensors: Mapping[str, StreamedTensor], *, file_bytes: int = FILE_BYTES) -> Index:
    """Write whole tensors as the files of one rank; their index goes into `write_description`'s folder by `publish.write_index`.

    Args:
        folder: an empty folder.
        tensors: by key; no more than one block of one tensor is in memory.
        file_bytes: a file is closed when it would grow beyond.

    Raises:
        OSError: the disk refuses it.
    """
    pieces = [
        Outgoing(key, tensor.info.shape, (0,) * len(tensor.info.shape), tensor.info, tensor.blocks)
        for key, tensor in tensors.items()
    ]
    return write_rank_files(folder, 0, pieces, file_bytes=file_bytes)
