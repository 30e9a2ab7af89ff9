"""Streaming evaluation in a run of one rank: figures are those of `moss eval`, and what cannot work is said at the start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.evaluation.in_training import flat
from model.errors import InputError
from moss_train.cli.in_training import make_streaming_evaluation
from moss_train.cli.main import main
from moss_train.evaluation.undisturbed import undisturbed
from moss_train.parallel.layout import stop_layout
from moss_train.trainer import train
from tests.moss_train.evaluation.scenarios import write_scenarios
from tests.moss_train.runs import run_config, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small dataset for all tests here, with scenarios."""
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    write_scenarios(root)
    return root


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    yield
    stop_layout()


def run(data: Path, run_dir: Path, stage: str = "pt2", steps: int = 3, **changes: Any) -> list[dict[str, Any]]:
    """Train in this process; the records."""
    settings = {"evaluation__streaming_every": 2, "evaluation__streaming_scenarios": str(data / "scenarios.jsonl")}
    inside = {"data__global_data_workers": 1, "data__worker_processes": 0, "train__eval_batches": 0}
    stop_layout()
    train(run_config(data, run_dir, stage, steps, **settings | inside | changes), [make_streaming_evaluation])
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_figures_are_those_of_the_command(data: Path, tmp_path: Path) -> None:
    """On the same weights, converted and loaded from files."""
    records = [row for row in run(data, tmp_path / "run", evaluation__streaming_max=2) if "eval_streaming_scenarios" in row]
    assert [row["step"] for row in records] == [2, 3]
    arguments = ["--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "scores"), "--limit", "2"]
    assert main(["eval", str(data / "scenarios.jsonl"), *arguments]) == 0
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    expected = {f"eval_streaming_{name}": value for name, value in flat(scores).items()}
    assert len(expected) > 10
    assert {name: records[1][name] for name in expected} == expected
    assert records[1]["eval_streaming_scenarios"] == 2


def test_what_cannot_work_is_said_before_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "lost.jsonl").write_text((data / "scenarios.jsonl").read_text())
    for changes, message in (
        ({"evaluation__streaming_scenarios": str(tmp_path / "none.jsonl")}, "none.jsonl does not exist"),
        ({"evaluation__streaming_scenarios": str(tmp_path / "lost.jsonl")}, "clip_0.mp4 of scenario scenario_0 does not exist"),
        ({"evaluation__streaming_scenarios": None}, "evaluation.streaming_every is 2 without evaluation.streaming_scenarios"),
        ({"stage": "warm_vision"}, "dense_labels, whose decoder says nothing"),
        ({"evaluation__best": "loss"}, "evaluation.best is 'loss'"),
        ({"evaluation__streaming_every": 0, "evaluation__best": "eval_streaming_speak_f1"}, "evaluation.streaming_every 0"),
        ({"evaluation__best": "eval_loss", "train__eval_batches": 0}, "evaluation.best is eval_loss with train.eval_batches 0"),
        (
            {"evaluation__best": "eval_loss", "train__eval_batches": 1, "data__validation": []},
            "evaluation.best is eval_loss without data.validation",
        ),
        ({"engine": "deepspeed", "deepspeed__zero_stage": 3}, "no rank holds whole weights"),
    ):
        with pytest.raises(InputError, match=message.replace(".", r"\.")):
            run(data, tmp_path / message, **changes)
        assert not (tmp_path / message / "metrics.jsonl").exists()
        assert "does not exist" in message or not (tmp_path / message).exists()  # only files are looked for after the start


def test_random_states_come_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with pytest.raises(ValueError), undisturbed(torch.device("cpu")):
        torch.rand(7)
        raise ValueError
    assert torch.equal(torch.rand(4), expected)
