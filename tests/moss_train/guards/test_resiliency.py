"""nvidia-resiliency-ext: what is said where it is not there, and real ranks under its monitors where it is."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.config.guard import GuardConfig
from moss_train.guards.position import Position
from moss_train.guards.resiliency import start_heartbeats
from moss_train.parallel.local_ranks import start_local_ranks
from moss_train.parallel.ports import hold_port
from tests.moss_train.kill_and_resume import losses
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import REPOSITORY, Launch

needs_the_extra = pytest.mark.skipif(
    importlib.util.find_spec("nvidia_resiliency_ext") is None, reason="pip install 'moss-train[resiliency]'"
)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"guard\.resiliency is 'heartbeats'; use one of none, heartbeat"):
        GuardConfig(resiliency="heartbeats")
    start_heartbeats(GuardConfig(), Position(0, 0, 0))  # off by default
    guard = GuardConfig(resiliency="heartbeat")
    monkeypatch.delenv("FT_RANK_MONITOR_IPC_SOCKET", raising=False)
    with pytest.raises(InputError, match="start the ranks with ft_launcher"):
        start_heartbeats(guard, Position(0, 0, 0))
    monkeypatch.setenv("FT_RANK_MONITOR_IPC_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("RANK", "0")
    if importlib.util.find_spec("nvidia_resiliency_ext") is None:
        with pytest.raises(InputError, match=r"pip install 'moss-train\[resiliency\]'"):
            start_heartbeats(guard, Position(0, 0, 0))
    else:
        with pytest.raises(InputError, match=r"no monitor of ft_launcher answers at .*nobody"):
            start_heartbeats(guard, Position(0, 0, 0))


@needs_the_extra
@pytest.mark.parametrize(("hang_seconds", "code"), [(60.0, 0), (1.0, -signal.SIGKILL)])
def test_the_monitor_ends_what_hangs_and_nothing_else(tmp_path: Path, hang_seconds: float, code: int) -> None:
    """A rank at a place where it may be is left alone, however long it says nothing of its own."""
    command = [sys.executable, "-m", "tests.moss_train.guards.heartbeat_rank", str(hang_seconds), str(tmp_path / "socket")]
    ended = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert f"ended with {int(code)}" in ended.stdout, ended.stdout + ended.stderr
    assert ("Did not get subsequent heartbeat" in ended.stderr) == (code != 0)
    assert ("the rank lives" in ended.stdout) == (code == 0)


@needs_the_extra
@pytest.mark.ranks
def test_ranks_that_all_stand_still_are_started_again(tmp_path: Path, launch: Launch) -> None:
    """Nobody of the run can say or end anything; what follows is what an undisturbed run computes."""
    write_data(tmp_path)
    changes = {"data__worker_processes": 0, "train__eval_batches": 0, "train__save_every": 4, "guard__lost_rank_seconds": 3.0}
    paths = {}
    for name, resiliency in (("calm", "none"), ("disturbed", "heartbeat")):
        config = run_config(tmp_path, tmp_path / name, "warm_text", 8, **changes, guard__resiliency=resiliency)
        paths[name] = save_run_config(config, tmp_path / f"{name}.yaml")
    assert launch(2, lambda: start_local_ranks(2, "moss_train.cli.main", ["train", "--config", str(paths["calm"])]))[0] == 0

    command = [sys.executable, "-m", "nvidia_resiliency_ext.fault_tolerance.launcher", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--ft-workload-check-interval", "1", "--ft-enable-nic-monitor", "false"]
    with hold_port() as port:
        command += ["--master-port", str(port), "-m", "tests.moss_train.guards.train_and_stand_still", str(paths["disturbed"])]
        ended = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "Did not get subsequent heartbeat. Waited 17.50 seconds" in ended.stderr
    assert "warm_text finished after 8 steps" in ended.stdout
    assert losses(tmp_path / "disturbed") == losses(tmp_path / "calm")
