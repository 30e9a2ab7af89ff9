"""In every layout one rank of a replica reads, every frame is encoded once, and all ranks end together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from moss_train.cli.main import main
from moss_train.feed.sample_log import read_sample_log
from tests.moss_train.feed.feed_ranks import FAILING
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.moss_train.test_runs_on_ranks import _damage
from tests.ranks import Launch, RunRanks

pytestmark = pytest.mark.ranks
SCRIPT = "tests.moss_train.feed.feed_ranks"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small dataset for all tests here."""
    root = tmp_path_factory.mktemp("data")
    write_data(root, 12)
    return root


@pytest.mark.parametrize(("ranks", "layouts"), [(2, ("dp2", "tp2", "pp2")), (4, ("tp2.pp2",))])
def test_reading_and_ending(run_ranks: RunRanks, data: Path, tmp_path: Path, ranks: int, layouts: tuple[str, ...]) -> None:
    shutil.copytree(data, tmp_path / "damaged")
    _damage(tmp_path / "damaged")
    output = run_ranks(SCRIPT, ranks, data, tmp_path, *layouts, timeout=280)
    found = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert set(found) == set(layouts)
    for layout, report in found.items():
        _check_reading(layout, report["reading"])
        assert ("failing" in report) == (layout in FAILING), layout
        if layout in FAILING:
            _check_failing(layout, report["failing"], ranks)
        (step, finished, ended, checkpoint), *others = report["ended"]["first"]
        assert all(other == [step, finished, ended, checkpoint] for other in others), layout
        assert ended and not finished and 1 < step < 500 and checkpoint == f"step_{step:08d}", (layout, step)
        assert report["ended"]["second"] == report["ended"]["first"], layout  # there is nothing to go on with
        keys = [key for batches in read_sample_log(tmp_path / layout / "run").values() for batch in batches for key in batch]
        assert len(keys) == len(set(keys)) <= 24, layout  # one pass over two datasets, at most the last step's rest missing


def _check_reading(layout: str, report: dict[str, Any]) -> None:
    """Non-readers open no shard and hold no pixels, but their replica's rows; towers see each frame that was read, once."""
    assert report["loader"] == report["reads"], layout
    assert sum(report["reads"]) == len(set(report["replica"])), layout
    for reads, opened, held in zip(report["reads"], report["opened"], report["pixel_bytes"], strict=True):
        assert (opened > 0) == reads, (layout, report["opened"])
        assert reads or held <= 4, (layout, report["pixel_bytes"])  # a byte a micro-batch
    rows = dict(zip(report["replica"], report["rows"], strict=True))
    assert [rows[replica] for replica in report["replica"]] == report["rows"], layout
    assert len(set(rows.values())) == len(rows), layout
    assert report["encoded"] == report["read"] and len(report["read"]) == sum(report["planned"]) > 0, layout
    assert max(report["planned"]) - min(report["planned"]) <= 1, layout


def _check_failing(layout: str, report: dict[str, list[str]], ranks: int) -> None:
    """All ranks end with one sentence, whichever met the cause."""
    words = {
        "sentence": "the last replica's sample is bad",
        "mistake": "rank 0 failed with ZeroDivisionError: of ours",
        "no folder": "absent",
        "held out": "absent",
        "no budget": "video/v3",
    }
    assert set(report) == set(words)
    for case, sentences in report.items():
        assert len(sentences) == ranks and len(set(sentences)) == 1, (layout, case, sentences)
        assert words[case] in sentences[0], (layout, case, sentences)


def test_the_command_says_that_the_data_ended(launch: Launch, data: Path, tmp_path: Path) -> None:
    once = [{"name": "text", "path": "text", "modality": "text", "repeats": 1}]
    config = run_config(data, tmp_path / "run", "pt2", 500, data__datasets=once, data__mixture={}, parallel__tensor=2)
    file = save_run_config(config, tmp_path / "run.yaml")
    code, out = launch(2, lambda: main(["train", "--config", str(file), "--nproc-per-node", "2"]))
    assert code == 0, out
    assert "stopped before its 500 steps because its data ended" in out and "Traceback" not in out
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert (tmp_path / "run" / "latest").read_text().strip() == f"step_{steps[-1]:08d}"
    assert rows[-1]["step"] == steps[-1] and "eval_loss" in rows[-1]  # the last weights are evaluated, as at any end
