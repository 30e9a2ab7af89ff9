"""A run on damaged shards, with a loader process killed on the way, ends with the weights of a run that never saw the damage."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.shards.info import read_samples
from moss_train.cli.main import main
from moss_train.config.schema import RunConfig
from moss_train.feed.sample_log import read_sample_log
from tests.data_pipeline.loader.damage import DAMAGES, IMAGE_DAMAGES, TEXT_DAMAGES, damage, truncate
from tests.moss_train.resume_ranks import TIMES
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import Launch, Ranks

pytestmark = pytest.mark.ranks

STEPS = 24
WATCHDOG = 150
"""Seconds after which runs count as hanging; they take a tenth of that."""
NOT_COMPARED = (*TIMES, "left_out")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("healthy")
    write_data(root, count=21)
    return root


def _break(healthy: Path, root: Path, seed: int) -> dict[tuple[str, str], str]:
    """Copy the data, damage a tenth of the samples in random ways, and cut a shard; {(dataset, key): point of failure}."""
    shutil.copytree(healthy, root)
    chance = random.Random(seed)
    expected: dict[tuple[str, str], str] = {}
    for name, ways in (("video", DAMAGES), ("image", IMAGE_DAMAGES), ("text", TEXT_DAMAGES)):
        *keys, last = [key for key, _ in read_samples(root / name)]
        tenth = len(keys) // 10
        chosen = dict(zip(chance.sample(keys, tenth), chance.sample(sorted(ways), tenth), strict=True))
        expected |= {(name, key): at for key, at in damage(root / name, **chosen).items()}
        (root / name / "summary.json").unlink()  # as other tools leave folders: with it, no run begins on a cut shard
        if name == "image":
            truncate(root / name, last)
            expected[name, last] = "read"
    return expected


def _kill_a_loader(starter: Ranks, metrics: Path, after: int, ended: threading.Event) -> None:
    """SIGKILL a process that reads for a rank: a fork, so with its parent's command line."""
    while not ended.wait(0.02):
        if metrics.is_file() and metrics.read_text().count("\n") >= after:
            os.kill(next(reader for rank in starter.pids for reader in _forks(rank)), signal.SIGKILL)
            return


def _run_whose_loader_is_killed(starter: Ranks, file: Path, ranks: int, metrics: Path, after: int) -> tuple[int, str]:
    """Exit code of the command and what its ranks wrote; behind the `after`th line of metrics a loader process is killed."""
    ended = threading.Event()
    killer = threading.Thread(target=_kill_a_loader, args=(starter, metrics, after, ended))
    killer.start()
    try:
        return starter.launch(ranks, lambda: main(["train", "--config", str(file), "--nproc-per-node", str(ranks)]))
    finally:
        ended.set()
        killer.join()


def _forks(pid: int) -> list[int]:
    """Processes below `pid` that run their parent's program."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    own = [child for child in children if _command(child) == _command(pid)]
    return own + [fork for child in children for fork in _forks(child)]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in NOT_COMPARED} for row in lines]


def _entered(run_dir: Path) -> list[tuple[tuple[str, str], str]]:
    entries = [json.loads(line) for line in (run_dir / "quarantine.jsonl").read_text().splitlines()]
    return [((e["dataset"], e["key"]), e["at"]) for e in entries if e["kind"] == "bad"]


def _trained(run_dir: Path) -> dict[str, bytes]:
    """Weights and optimizer state of the last checkpoint, byte for byte."""
    files = {f.name: f.read_bytes() for f in (run_dir / "checkpoints" / f"step_{STEPS:08d}").rglob("*.safetensors")}
    assert files
    return files


def _config(root: Path, run_dir: Path, ranks: int, **changes: Any) -> RunConfig:
    settings = {"data__global_data_workers": ranks, "data__worker_processes": 1, "train__global_batch_size": ranks}
    return run_config(root, run_dir, "pt2", STEPS, train__save_every=5, data__log_samples=True, **settings | changes)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_damaged_run_equals_one_with_its_ledger_as_skip_list(
    starter: Ranks, healthy: Path, tmp_path: Path, ranks: int, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = _break(healthy, tmp_path / "broken", seed=ranks)
    config = _config(tmp_path / "broken", tmp_path / "damaged", ranks)
    file = save_run_config(config, tmp_path / "damaged.yaml")
    code, error = _run_whose_loader_is_killed(starter, file, ranks, tmp_path / "damaged" / "metrics.jsonl", after=7)
    error += capfd.readouterr().err
    assert code == 2, error
    assert error.count("error:") == 1 and "was killed by SIGKILL" in error and "Traceback" not in error, error
    assert (tmp_path / "damaged" / "latest").is_file()

    # continued to its end, and then the twin with what its ledger holds by then
    ledger = tmp_path / "damaged" / "quarantine.jsonl"
    twin = _config(healthy, tmp_path / "twin", ranks, data__skip_samples=str(ledger))
    other = save_run_config(twin, tmp_path / "twin.yaml")
    starter.run("tests.moss_train.train_ranks", ranks, file, other, timeout=WATCHDOG)
    entered = _entered(tmp_path / "damaged")
    assert len(entered) == len(dict(entered))  # each once, also those met before and after the restart
    assert dict(entered) == expected  # more than one pass over the data has met them all
    assert not (tmp_path / "twin" / "quarantine.jsonl").exists()
    used = read_sample_log(tmp_path / "damaged")
    assert used == read_sample_log(tmp_path / "twin")
    assert not {f"{name}/{key}" for name, key in expected} & {key for step in used.values() for keys in step for key in keys}
    assert _rows(tmp_path / "damaged") == _rows(tmp_path / "twin")
    assert _trained(tmp_path / "damaged") == _trained(tmp_path / "twin")


def test_a_full_disk_under_the_ledger_ends_all_ranks_with_one_cause(
    launch: Launch, healthy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _break(healthy, tmp_path / "broken", seed=0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "quarantine.jsonl").symlink_to("/dev/full")  # refuses what is written, as a full disk does
    file = save_run_config(_config(tmp_path / "broken", tmp_path / "run", 2), tmp_path / "run.yaml")
    code, output = launch(2, lambda: main(["train", "--config", str(file), "--nproc-per-node", "2"]))
    error = output + capfd.readouterr().err
    assert code == 2, error
    assert "cannot be written (No space left on device)" in error and "Traceback" not in error, error
    assert error.count("error:") == 1, error
