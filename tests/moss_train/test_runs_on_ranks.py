"""Runs on several ranks: exact continuation in the same and in another layout, and one rank that fails."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from moss_train.cli.main import main
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import Launch, RunRanks

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small dataset for all tests here."""
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


def _close(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_close(one[key], two[key]) for key in one)
    return abs(one - two) <= 1e-5 * max(1.0, abs(one))


def test_continued_runs(run_ranks: RunRanks, data: Path, tmp_path: Path) -> None:
    """Bit for bit in the same layout; within rounding after a change of model-parallel sizes."""
    output = run_ranks("tests.moss_train.resume_ranks", 2, data, tmp_path, timeout=240)
    report = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert "data.global_data_workers = 2, now it is 1" in report.pop("other_readers")
    assert set(report) == {"dp2-dp2", "tp2-pp2", "cp2-tp2"}
    for one, two in zip(report["tp2-pp2"]["whole"], report["cp2-tp2"]["whole"], strict=True):
        assert _close(one, two), (one, two)  # the same data, losses and counts, held-out ones too
    for name, runs in report.items():
        assert runs["folders"] == ["step_00000003", "step_00000005"], name
        whole, resumed = runs["whole"], runs["resumed"]
        assert [row["step"] for row in whole] == [0, 1, 2, 3, 4, 5, 5]
        assert len(whole) == len(resumed)
        if name == "dp2-dp2":
            assert whole == resumed
        else:
            for one, two in zip(whole, resumed, strict=True):
                assert _close(one, two), (name, one, two)


def _damage(root: Path) -> None:
    """Zero the bytes of one video inside its shard."""
    for shard in (root / "video").glob("*.tar"):
        content = bytearray(shard.read_bytes())
        with tarfile.open(shard) as members:
            for member in members:
                if member.name == "v3.0.mp4":
                    content[member.offset_data : member.offset_data + member.size] = bytes(member.size)
        shard.write_bytes(content)


def test_one_failing_rank_ends_all(tmp_path: Path, launch: Launch, capfd: pytest.CaptureFixture[str]) -> None:
    """The video lies with one replica only; the other waits in a collective."""
    write_data(tmp_path)
    _damage(tmp_path)
    config = run_config(tmp_path, tmp_path / "run", "pt2", 500, data__max_bad_samples=0, train__eval_batches=0)
    file = save_run_config(config, tmp_path / "run.yaml")
    code, out = launch(2, lambda: main(["train", "--config", str(file), "--nproc-per-node", "2"]))
    err = out + capfd.readouterr().err
    assert code == 2, err
    assert "video/v3" in err and str(tmp_path / "run" / "quarantine.jsonl") in err
    assert "Traceback" not in err
    assert err.count("error:") == 1, err
    assert not (tmp_path / "run" / "latest").exists()
