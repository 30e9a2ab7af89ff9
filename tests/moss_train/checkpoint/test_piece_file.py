"""Files of a rank: a refused one ends the writing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.conversion.tensor_file import TensorInfo
from moss_train.checkpoint.piece_file import Outgoing, write_rank_files

_FILES = 24


@pytest.mark.parametrize("writers", [1, 2])
def test_files_behind_one_that_is_refused_are_not_begun(tmp_path: Path, writers: int) -> None:
    begun: list[int] = []

    def blocks(number: int) -> Iterator[Tensor]:
        begun.append(number)
        if number == 0:
            raise OSError("no room")
        time.sleep(0.02)
        yield torch.full((16,), float(number))

    info = TensorInfo((16,), torch.float32)
    pieces = [Outgoing(f"weight_{n}", (16,), (0,), info, partial(blocks, n)) for n in range(_FILES)]
    with pytest.raises(OSError, match="no room"):
        write_rank_files(tmp_path, 0, pieces, file_bytes=64, writers=writers)
    assert len(begun) < _FILES // 2
    assert writers > 1 or begun == [0]


@pytest.mark.parametrize("writers", [1, 3])
def test_every_piece_is_in_the_index_of_its_file(tmp_path: Path, writers: int) -> None:
    info = TensorInfo((16,), torch.float32)
    pieces = [Outgoing(f"weight_{n}", (16,), (0,), info, lambda: iter([torch.ones(16)])) for n in range(_FILES)]
    index = write_rank_files(tmp_path, 0, pieces, file_bytes=128, writers=writers)
    assert len(index.files) == _FILES // 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(index.files)
