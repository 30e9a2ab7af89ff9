"""`moss data cache`, and a run that reads what it copied."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moss_train.cli.main import main
from moss_train.parallel.layout import stop_layout
from moss_train.trainer import train
from tests.moss_train.resume_ranks import rows
from tests.moss_train.runs import run_config, save_run_config, write_data


def losses(run_dir: Path) -> list[float]:
    return [row[name] for row in rows(run_dir) for name in ("loss", "eval_loss") if name in row]


def test_a_run_reads_the_copies_and_learns_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    write_data(data)
    here = {"data__global_data_workers": 2, "data__worker_processes": 0, "steps": 2}
    train(run_config(data, tmp_path / "plain", **here))
    stop_layout()
    config = run_config(data, tmp_path / "cached", launcher__cache={"folder": str(cache)}, **here)
    words = ["data", "cache", "--config", str(save_run_config(config, tmp_path / "config.yaml"))]

    assert main([*words, "--dry-run"]) == 0 and not cache.exists()
    out = capsys.readouterr().out
    assert f"video: 2 of 2 shards in {cache}" in out and "0 are there" in out and "copied" not in out
    monkeypatch.setenv("NODE_RANK", "1")
    assert main([*words, "launcher.nodes=2", "--dry-run"]) == 0  # a node of one rank and so of one of the two readers
    assert "video: 1 of 1 shards that this node reads (2 in all)" in capsys.readouterr().out
    monkeypatch.delenv("NODE_RANK")

    assert main(words) == 0
    told = capsys.readouterr()
    assert f"held_out: 1 of 1 shards in {cache}" in told.out and f"video: 2 of 2 shards in {cache}" in told.out
    assert not told.err  # no bar where nobody looks
    assert main(["data", "cache", "--status", "--folder", str(cache)]) == 0
    assert f"{cache}: 4 datasets" in capsys.readouterr().out

    for path in data.glob("*/*.tar"):
        path.write_bytes(bytes(path.stat().st_size))  # whoever reads the source finds no sample
    train(config)
    stop_layout()
    assert len(losses(tmp_path / "cached")) == 4 and losses(tmp_path / "cached") == losses(tmp_path / "plain")

    assert main(["data", "cache", "--clear", "--folder", str(cache)]) == 0
    assert f"removed the copies of 4 datasets from {cache}" in capsys.readouterr().out


def test_a_bar_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_data(tmp_path, count=2)
    config = run_config(tmp_path, tmp_path / "run", stage="warm_text", launcher__cache={"folder": str(tmp_path / "cache")})
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["data", "cache", "--config", str(save_run_config(config, tmp_path / "config.yaml"))]) == 0
    told = capsys.readouterr().err
    assert "copying" in told and "kB" in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stage=pt2"], "launcher.cache.folder is empty; name a folder"),
        (["stage=pt2", "--status", "--clear"], "--status, --clear and --dry-run exclude each other"),
        (["stage=pt2", "data.root=/nowhere", "--folder", "copies"], "the folder /nowhere/image does not exist"),
    ],
)
def test_mistakes_are_told(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", *words]) == 2
    assert sentence in capsys.readouterr().err
