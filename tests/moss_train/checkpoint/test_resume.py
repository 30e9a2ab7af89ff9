"""Which checkpoint `train.resume` means."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.errors import InputError
from moss_train.checkpoint.description import CheckpointDescription, step_name
from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.publish import publish, temporary_folder
from moss_train.checkpoint.rank_files import RankFiles
from moss_train.checkpoint.resume import checkpoint_to_continue
from moss_train.parallel.world import start_world, stop_world
from tests.moss_train.checkpoint.folders import names_in


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    start_world(torch.device("cpu"))
    yield
    stop_world()


def _save(run: Path, *steps: int) -> None:
    for step in steps:
        folder = temporary_folder(run, step)
        RankFiles(0, [Piece("w", (4,), (0,), (4,), torch.full((4,), float(step)))]).write(folder)
        publish(run, folder, CheckpointDescription(step=step, model={}))


def _choose(run: Path, resume: str, begun_with: str | None = None) -> str | None:
    chosen = checkpoint_to_continue(run, resume, "full", lambda description, checkpoint: None, begun_with)
    return None if chosen is None else str(chosen.relative_to(chosen.parents[2]))


def _damage(run: Path, step: int, file: str = "rank_00000_000.safetensors") -> None:
    path = run / "checkpoints" / step_name(step) / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _in(run: str, step: int) -> str:
    return f"{run}/checkpoints/{step_name(step)}"


def test_auto_takes_the_newest_good_one_whatever_latest_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert _choose(run, "auto") is None and not run.exists()
    _save(run, 1, 2, 3, 4)
    for pointer in (b"step_00000001", b"nothing", b"\xff"):
        (run / "latest").write_bytes(pointer)
        assert _choose(run, "auto") == _in("run", 4)
    (run / "checkpoints" / f"{step_name(5)}.1.tmp").mkdir()
    _damage(run, 4)
    _damage(run, 3, "checkpoint.json")
    assert _choose(run, "auto") == _in("run", 2)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("moss: warning: ")]
    assert len(warnings) == 2 and f"{step_name(4)} is passed over" in warnings[0] and "rank_00000_000.safetensors" in warnings[0]
    # The damaged ones stand aside: nothing takes them for the newest again.
    assert names_in(run) == [step_name(1), step_name(2), f"{step_name(3)}.damaged", f"{step_name(4)}.damaged"]


def test_no_good_one_is_an_error_and_nothing_is_changed(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)
    _damage(tmp_path, 1)
    _damage(tmp_path, 2, "index.json")
    with pytest.raises(InputError, match=r"holds no good checkpoint: .*step_00000002/index\.json is damaged"):
        _choose(tmp_path, "auto")
    assert names_in(tmp_path) == [step_name(1), step_name(2)]


def test_a_checkpoint_of_another_kind_of_run_is_not_passed_over(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)

    def check(description: CheckpointDescription, checkpoint: Path) -> None:
        raise InputError(f"{checkpoint.name} is of another stage")

    with pytest.raises(InputError, match="step_00000002 is of another stage"):
        checkpoint_to_continue(tmp_path, "auto", "full", check)


def test_latest_is_the_newest_or_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no checkpoint and train\.resume is latest"):
        _choose(tmp_path, "latest")
    _save(tmp_path, 1, 2)
    assert _choose(tmp_path, "latest") == _in(tmp_path.name, 2)
    _damage(tmp_path, 2)
    with pytest.raises(InputError, match=r"step_00000002/rank_00000_000\.safetensors is damaged: w, bytes"):
        _choose(tmp_path, "latest")
    assert checkpoint_to_continue(tmp_path, "latest", "sizes", lambda *_: None) is not None  # as asked for


def test_none_refuses_what_is_there(tmp_path: Path) -> None:
    assert _choose(tmp_path, "none") is None
    _save(tmp_path, 1)
    with pytest.raises(InputError, match=r"already holds step_00000001 and train\.resume is none"):
        _choose(tmp_path, "none")


def test_a_path_is_that_checkpoint(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    _save(other, 1, 2, 3)
    second = str(other / "checkpoints" / step_name(2))
    assert _choose(run, second) == _in("other", 2)
    assert _choose(run, str(other)) == _in("other", 3)
    with pytest.raises(InputError, match=r"train\.resume is 'atuo', which does not exist; use auto, latest, none or"):
        _choose(run, "atuo")
    with pytest.raises(InputError, match=r"already holds step_00000003, newer than step_00000002 .* or remove the newer"):
        _choose(other, second)
    shutil.rmtree(other / "checkpoints" / step_name(3))
    assert _choose(other, second) == _in("other", 2)
    _save(run, 5)
    with pytest.raises(InputError, match=r"already holds step_00000005 and train\.resume is .*, a checkpoint of another run"):
        _choose(run, second)
    assert _choose(run, second, begun_with=second) == _in("run", 5)  # the same command again goes on
    _damage(other, 2)
    shutil.rmtree(run)
    with pytest.raises(InputError, match="is damaged"):
        _choose(run, second)
