"""Checkpoints behind a run: what they hold, what a disk that refuses does, and what stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moss_train.checkpoint.description import read_description, step_name
from moss_train.checkpoint.integrity import check_sizes
from moss_train.config.schema import RunConfig
from moss_train.evaluation.base import MakeEvaluator
from moss_train.feed.agreement import CommonError
from moss_train.parallel.layout import stop_layout
from moss_train.parallel.world import stop_world
from moss_train.trainer import Outcome, train
from tests.moss_train.checkpoint.folders import names_in
from tests.moss_train.checkpoint.unblocking import After
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import RunRanks

QUICK: dict[str, Any] = {
    "train__eval_batches": 0, "data__worker_processes": 0, "data__global_data_workers": 1, "train__save_every": 2,
    "checkpoint__retry_seconds": 0.02,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root, 12)
    return root


def _train(config: RunConfig, evaluators: tuple[MakeEvaluator, ...] = ()) -> Outcome:
    try:
        return train(config, evaluators)
    finally:
        stop_layout()
        stop_world()


def _files(run: Path) -> dict[str, bytes]:
    return {f"{f.parent.name}/{f.name}": f.read_bytes() for f in run.glob("checkpoints/*/*") if f.suffix == ".safetensors"}


def test_what_is_written_behind_the_run_is_the_state_of_its_step(data: Path, tmp_path: Path) -> None:
    for name, asynchronous in (("behind", True), ("waiting", False)):
        _train(
            run_config(
                data, tmp_path / name, "pt2", 7, **QUICK, checkpoint__asynchronous=asynchronous, checkpoint__keep_last=9,
            )
        )  # fmt: skip
    assert names_in(tmp_path / "behind") == [step_name(step) for step in (2, 4, 6, 7)]
    assert _files(tmp_path / "behind") == _files(tmp_path / "waiting")
    descriptions = [read_description(tmp_path / "behind" / "checkpoints" / step_name(step)) for step in (2, 4, 6, 7)]
    assert [d.step for d in descriptions] == [d.updates for d in descriptions] == [2, 4, 6, 7]


def test_some_stay_for_ever_and_the_old_name_counts(data: Path, tmp_path: Path) -> None:
    _train(run_config(data, tmp_path / "run", "warm_text", 11, **QUICK, checkpoint__keep_every=4, train__keep_last=1))
    assert names_in(tmp_path / "run") == [step_name(step) for step in (4, 8, 11)]


def test_a_disk_that_refuses_for_a_while(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file in the place of the folder: nobody can make it, root neither."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("in the way")
    seen = []

    def after(step: int) -> None:
        seen.append(step)
        if step == 6:
            (run / "checkpoints").unlink()

    outcome = _train(run_config(data, run, "warm_text", 12, **QUICK), (After(after).make,))
    assert seen == list(range(1, 13)) and outcome.finished and outcome.checkpoint == run / "checkpoints" / step_name(12)
    assert step_name(12) in names_in(run) and not [name for name in names_in(run) if name.endswith(".tmp")]
    check_sizes(run / "checkpoints" / step_name(12))
    error = capfd.readouterr().err
    warnings = [line for line in error.splitlines() if line.startswith("moss: warning: rank 0 cannot write the checkpoint ")]
    assert warnings and "training goes on, the next attempt comes in 0.02 s" in warnings[0]
    assert "Traceback" not in error


def test_a_disk_that_refuses_to_the_end(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").write_text("in the way")
    config = run_config(data, run, "warm_text", 3, **QUICK, checkpoint__end_retry_seconds=0.2)
    with pytest.raises(CommonError, match=r"step_00000003 cannot be written \((Not a directory|File exists)\); make room or"):
        _train(config)
    assert (run / "checkpoints").read_text() == "in the way"


@pytest.mark.ranks
def test_one_rank_whose_disk_is_full_for_a_while(data: Path, tmp_path: Path, run_ranks: RunRanks) -> None:
    """Of two ranks one may write no large file until step 5; both go on, and all checkpoints that stay are whole."""
    quick = QUICK | {"data__global_data_workers": 2}
    config = run_config(data, tmp_path / "run", "warm_text", 8, **quick, checkpoint__keep_last=9)
    output = run_ranks("tests.moss_train.checkpoint.refused_ranks", 2, save_run_config(config, tmp_path / "config.yaml"), 5)
    assert output.count("rank 0: finished 8") == output.count("rank 1: finished 8") == 1
    warnings = [line for line in output.splitlines() if "moss: warning: rank 1 cannot write the checkpoint" in line]
    assert warnings and all("(File too large)" in line for line in warnings)
    names = names_in(tmp_path / "run")
    assert step_name(2) not in names and names[-1] == step_name(8)
    for name in names:
        check_sizes(tmp_path / "run" / "checkpoints" / name)
