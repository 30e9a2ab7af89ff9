"""Whether a checkpoint is what was written: sizes of all files, and checksums of everything that is going to be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch.distributed as dist

from model.errors import InputError
from moss_train.checkpoint.common import in_common
from moss_train.checkpoint.description import read_description
from moss_train.checkpoint.index import INDEX, Index, StoredPiece, checksum_of_file, read_index
from moss_train.checkpoint.tensors import check_piece

_THREADS = 4


def check_checkpoint(folder: Path, verify: str = "full", wanted: Callable[[str], bool] = lambda key: True) -> None:
    """Refuse a damaged checkpoint; the ranks share the work and every rank calls it.

    Args:
        folder: the checkpoint.
        verify: full | sizes | nothing.
        wanted: which keys are going to be read.

    Raises:
        InputError: the first damage that some rank found, with the file.
    """
    if verify == "nothing":
        return
    rank, ranks = dist.get_rank(), dist.get_world_size()
    in_common(lambda: check_share(folder, verify, wanted, rank, ranks))


def check_share(
    folder: Path, verify: str = "full", wanted: Callable[[str], bool] = lambda key: True, share: int = 0, shares: int = 1
) -> None:
    """One rank's part of `check_checkpoint`; with one share all of it, without a process group.

    Raises:
        InputError: damage, with the file.
    """
    index = check_sizes(folder)
    if verify != "full":
        return
    check_piece_share(folder, index, wanted, share, shares)


def check_sizes(folder: Path) -> Index:
    """Compare the sizes of all files, and the checksums of the small ones.

    Returns:
        The checkpoint's index.

    Raises:
        InputError: damage, with the file.
    """
    description = read_description(folder)
    for name, (size, crc32) in description.files.items():
        _check_size(folder / name, size)
        if checksum_of_file(folder / name) != (size, crc32):
            raise InputError(
                f"{folder / name} is damaged: it does not have the checksum that it was written with; copy the checkpoint again "
                "or use an earlier one"
            )
    if INDEX not in description.files:
        raise InputError(f"{folder} is damaged: its description names no {INDEX}; use an earlier checkpoint")
    index = read_index(folder / INDEX)
    for name, size in index.files.items():
        _check_size(folder / name, size)
    return index


def check_piece_share(folder: Path, index: Index, wanted: Callable[[str], bool], share: int, shares: int) -> None:
    """Compare every `shares`-th byte or so of the wanted tensors with their checksums.

    Raises:
        InputError: damage, with the file.
    """
    todo = [
        (piece.count * tensor.info.dtype.itemsize, key, tensor.info.dtype.itemsize, piece)
        for key, tensor in index.tensors.items()
        if wanted(key)
        for piece in tensor.pieces
    ]
    todo.sort(key=lambda row: -row[0])  # the largest first, dealt out in turn, so that shares are alike
    descriptors = {file: os.open(folder / file, os.O_RDONLY) for file in {row[3].file for row in todo[share::shares]}}

    def check(row: tuple[int, str, int, StoredPiece]) -> None:
        _, key, element_size, piece = row
        check_piece(descriptors[piece.file], folder / piece.file, key, piece, element_size)

    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="checkpoint") as pool:
            for _ in pool.map(check, todo[share::shares]):
                pass
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); use an earlier checkpoint") from None
    if found != size:
        raise InputError(f"{path} is damaged: it has {found} bytes of {size}; copy the checkpoint again or use an earlier one")
