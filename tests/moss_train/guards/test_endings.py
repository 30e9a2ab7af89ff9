"""How `moss train` on two ranks ends: of what only one rank knows, of a rank that hangs, and by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moss_train.guards.cause import EXIT_BAD_INPUT, EXIT_HANG, EXIT_NOT_IN_TIME
from moss_train.parallel.local_ranks import start_local_ranks
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import REPOSITORY, Launch

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


def _config(data: Path, tmp_path: Path, steps: int = 5, **changes: Any) -> Path:
    here = {"data__worker_processes": 0, "train__eval_batches": 0, "guard__lost_rank_seconds": 9.0}
    return save_run_config(run_config(data, tmp_path / "run", "warm_text", steps, **here | changes), tmp_path / "run.yaml")


FAULTS: dict[str, tuple[int, dict[str, Any], list[str]]] = {
    "input": (EXIT_BAD_INPUT, {}, ["[rank 1]: error: the third step is too much for this rank; give it two"]),
    "bug": (1, {}, ["KeyError: 'lost'"]),
    "data": (
        EXIT_HANG,
        {"guard__hang_seconds": 3.0, "guard__slow_seconds": 60.0, "data__worker_timeout_seconds": 1.0},
        ["step 3 made no progress for 4 s: rank 1 on host ", "train_with_fault.py", "(data), in no collective; rank 0 on host ",
         "waits in all_gather_into_tensor at moss_train/feed/agreement.py"],
    ),
    "prepare": (
        EXIT_NOT_IN_TIME,
        {"guard__stop_seconds": 2.0, "train__save_every": 1},
        ["the run was told to end and had not saved within guard.stop_seconds = 2; the checkpoint of step "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_one_rank_knows_ends_all(
    data: Path, tmp_path: Path, fault: str, launch: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, changes, parts = FAULTS[fault]
    config = _config(data, tmp_path, **changes)
    begin = time.monotonic()
    ended, out = launch(2, lambda: start_local_ranks(2, "tests.moss_train.guards.train_with_fault", [fault, str(config)]))
    err = out + capfd.readouterr().err
    assert ended == code, err
    assert time.monotonic() - begin < 150  # start included; whoever waited for a collective would need 600
    for part in parts:
        assert err.count(part) == 1, err
    assert err.count("error:") == (0 if fault == "bug" else 1), err
    assert err.count("Traceback") == (1 if fault == "bug" else 0), err


def _start(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "moss_train.cli.main", "train", "--config", str(config), "--nproc-per-node", "2"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True, **pipes)


def test_ctrl_c_saves_and_is_no_second_signal(data: Path, tmp_path: Path) -> None:
    """The terminal sends SIGINT to the launcher and all ranks, and the launcher sends it on."""
    process = _start(_config(data, tmp_path, steps=100_000))
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "was told to end and saved" in out and "Traceback" not in err and "interrupted" not in err
    last = [json.loads(line)["step"] for line in metrics.read_text().splitlines()][-1]
    assert (tmp_path / "run" / "latest").read_text().strip() == f"step_{last:08d}"
