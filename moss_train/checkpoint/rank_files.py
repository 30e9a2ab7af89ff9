"""What one rank writes into a checkpoint: its pieces of tensors, and small files of its own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moss_train.checkpoint.index import Index
from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.piece_file import Outgoing, write_rank_files
from moss_train.checkpoint.publish import figures_of, sync_folder, write_rank_index
from moss_train.checkpoint.torch_file import write_torch_file


@dataclass
class RankFiles:
    """Everything that a rank writes, held in host memory."""

    rank: int
    pieces: list[Piece]
    objects: dict[str, Any] = field(default_factory=dict)
    """Small states of modules, by key."""
    small: dict[str, Any] = field(default_factory=dict)
    """Further values, each written as a file of the given name."""

    def write(self, folder: Path, writers: int = 1) -> Index:
        """Write all of it, and last the rank's index.

        Args:
            folder: the checkpoint's temporary folder.
            writers: files of tensors written at the same time.

        Raises:
            OSError: the disk refuses something.
        """
        folder.mkdir(parents=True, exist_ok=True)
        index = write_rank_files(folder, self.rank, [Outgoing.of(piece) for piece in self.pieces], writers=writers)
        small = dict(self.small)
        if self.objects:
            small[objects_file(self.rank)] = self.objects
        for name, value in small.items():
            write_torch_file(value, folder / name)
            _sync_file(folder / name)
        index.small = figures_of(folder, small)
        index.objects = dict.fromkeys(self.objects, objects_file(self.rank))
        write_rank_index(folder, self.rank, index)
        sync_folder(folder)
        return index


def objects_file(rank: int) -> str:
    """`objects_00003.pt` for 3."""
    return f"objects_{rank:05d}.pt"


def random_file(rank: int) -> str:
    """`random_00003.pt` for 3."""
    return f"random_{rank:05d}.pt"


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
