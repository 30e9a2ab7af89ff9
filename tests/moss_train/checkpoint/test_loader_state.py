"""The place in the data inside a checkpoint: files of all replicas, read as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.loader.state import new_state
from model.errors import InputError
from moss_train.checkpoint.loader_state import loader_file, read_loader_state
from moss_train.parallel.world import start_world, stop_world


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    start_world(torch.device("cpu"))
    yield
    stop_world()


def write(folder: Path, replicas: int, readers: int = 4) -> None:
    for replica in range(replicas):
        own: dict[int, bytes | None] = {number: f"place {number}".encode() for number in range(replica, readers, replicas)}
        state = new_state({"data.global_data_workers": readers}, 8, own, ended=False)
        torch.save(state, folder / loader_file(replica))


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_the_files_of_any_number_of_replicas_make_one_state(tmp_path: Path, replicas: int) -> None:
    write(tmp_path, replicas)
    state = read_loader_state(tmp_path, replicas)
    assert state["readers"] == {number: f"place {number}".encode() for number in range(4)}
    assert state["micro_batches"] == 8


def test_a_checkpoint_without_a_place_gives_none(tmp_path: Path) -> None:
    for replica in range(2):
        torch.save(None, tmp_path / loader_file(replica))
    assert read_loader_state(tmp_path, 2) is None


def _lose(folder: Path) -> None:
    (folder / loader_file(1)).unlink()


def _cut(folder: Path) -> None:
    path = folder / loader_file(0)
    path.write_bytes(path.read_bytes()[:200])


def _add(folder: Path) -> None:
    (folder / loader_file(2)).write_bytes((folder / loader_file(1)).read_bytes())


def _copy(folder: Path) -> None:
    (folder / loader_file(1)).write_bytes((folder / loader_file(0)).read_bytes())


def _shrink(folder: Path) -> None:
    """Files of four replicas, of which two were lost together with the description's number."""
    write(folder, 4)
    (folder / loader_file(2)).unlink()
    (folder / loader_file(3)).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_lose, r"loader_00001\.pt cannot be read \(.*No such file"),
        (_cut, r"loader_00000\.pt cannot be read"),
        (_add, r"holds loader_00002\.pt though 2 data-parallel replicas wrote it"),
        (_copy, r"the place in the data in .* holds reader 0 twice"),
        (_shrink, r"the place in the data in .* lacks readers 2, 3 of 4"),
    ],
)
def test_files_that_do_not_make_a_whole_are_refused(tmp_path: Path, damage: Callable[[Path], Any], sentence: str) -> None:
    write(tmp_path, 2)
    damage(tmp_path)
    with pytest.raises(InputError, match=sentence):
        read_loader_state(tmp_path, 2)


def test_a_changed_byte_is_never_taken_for_a_place(tmp_path: Path) -> None:
    """Unpickling alone would take many for another place, and others would end it with errors of all kinds."""
    write(tmp_path, 2)
    path = tmp_path / loader_file(0)
    whole = path.read_bytes()
    begin = whole.index(b"global_data_workers")  # inside the stored object; zip's own fields lie elsewhere
    for place in range(begin, begin + 100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(
            InputError, match=r"^.*loader_00000\.pt cannot be read \(.*checksum.*\); copy the checkpoint again.*$"
        ):
            read_loader_state(tmp_path, 2)
