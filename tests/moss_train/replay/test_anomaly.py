"""The batch that a guard kept is the one that is read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import InputError
from moss_train.cli.main import main
from moss_train.parallel.layout import stop_layout
from moss_train.replay.anomaly import read_anomaly_step
from moss_train.replay.run import replay_step
from moss_train.trainer import train
from tests.moss_train.runs import run_config, write_data


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that a guard stopped, since its gradients were no numbers."""
    root = tmp_path_factory.mktemp("stopped")
    write_data(root / "data")
    values: dict[str, Any] = {"stage__learning_rate": 1e25, "stage__warmup_ratio": 0.0, "train__eval_batches": 0}
    config = run_config(
        root / "data", root / "run", "pt2", 20, data__worker_processes=0, data__log_samples=True, **values
    )  # fmt: skip
    stop_layout()
    with pytest.raises(InputError, match=r"is (nan|inf)"):
        train(config)
    stop_layout()
    yield root / "run"
    stop_layout()


def kept(run_dir: Path) -> Path:
    (folder,) = (run_dir / "anomalies").iterdir()
    return folder


def test_it_is_the_step_of_the_run(run_dir: Path) -> None:
    found = read_anomaly_step(kept(run_dir), [], [])
    again = replay_step(run_dir, found.step)
    assert found.step > 1 and list(found.batches) == list(again.batches) == [0, 1] and found.whole
    for number, batch in found.batches.items():
        other = again.batches[number]
        assert batch.sample_keys == other.sample_keys
        assert torch.equal(batch.input_ids, other.input_ids) and torch.equal(batch.frames, other.frames)
    assert "pixels, by the run's sample log" in found.checks.equal
    assert any("not reached, or it ended the run" in note for note in again.checks.notes)


def test_the_command_shows_it(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept(run_dir)
    assert main(["replay", str(folder), "--json", "--micro-batch", "1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [part["number"] for part in printed["micro_batches"]] == [1] and "summary.json" in printed["notes"][0]
    assert main(["replay", str(folder), "step=3"]) == 2
    assert "holds one step already" in capsys.readouterr().err
    assert main(["replay", str(folder), "--micro-batch", "7"]) == 2
    assert "holds the micro-batches 0, 1" in capsys.readouterr().err


def test_a_damaged_folder_is_one_sentence(run_dir: Path) -> None:
    folder = run_dir / "anomalies" / "step_00000999"
    folder.mkdir()
    with pytest.raises(InputError, match=r"summary\.json cannot be read"):
        read_anomaly_step(folder, [], [])
    folder.rmdir()
