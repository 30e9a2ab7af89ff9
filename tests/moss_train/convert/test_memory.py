"""A conversion holds no more than its largest tensor, however large the model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.conversion.folder import write_hf_folder
from model.conversion.stream import cut
from model.conversion.table import hf_shapes
from model.conversion.tensor_file import StreamedTensor, TensorInfo
from tests.model.small import small_config, with_text
from tests.ranks import REPOSITORY


def _growth(*arguments: object) -> int:
    command = [sys.executable, "-m", "tests.moss_train.convert.memory_probe", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout.splitlines()[-1])


def _blocks(info: TensorInfo) -> Callable[[], Iterator[torch.Tensor]]:
    def blocks() -> Iterator[torch.Tensor]:
        for _, rows in cut(0, info.shape[0], info.row_bytes, 1 << 20):
            yield torch.full((rows, *info.shape[1:]), 0.5, dtype=info.dtype)

    return blocks


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux' /proc")
def test_the_peak_stays_below_the_largest_tensor_and_a_fifth(tmp_path: Path) -> None:
    config = with_text(small_config(), hidden_size=256, vocab_size=150_000, num_hidden_layers=2, cross_attention_layers=(1,))
    infos = {name: TensorInfo(shape, torch.bfloat16) for name, shape in hf_shapes(config).items()}
    write_hf_folder(tmp_path / "hf", {name: StreamedTensor(info, _blocks(info)) for name, info in infos.items()}, config)
    sizes = sorted(info.num_bytes for info in infos.values())
    largest, total = sizes[-1], sum(sizes)
    assert largest > 70 << 20 and total > 2 * largest
    for arguments in (("from-hf", tmp_path / "hf", tmp_path / "run"), ("to-hf", tmp_path / "run", tmp_path / "back")):
        assert _growth(*arguments) < 1.2 * largest, arguments[0]
