"""What a Slurm job decides: real processes of `moss_train.launching.slurm_job`, with Slurm's commands as scripts of a few lines.

tests/cluster runs whole jobs on a real Slurm; here every ending of training is tried, which takes a second each.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moss_train.config.compose import compose, save_config
from moss_train.guards.ending import Ending, write_ending
from moss_train.launching.history import History
from moss_train.launching.nodes import nodes_to_blame
from tests.ranks import REPOSITORY

ENDINGS = {
    "finished": Ending("finished", 0, step=9),
    "data ended": Ending("data ended", 0, step=5),
    "told": Ending("told to end", 0, step=5),
    "bad input": Ending("failed", 2, "the shards are gone"),
    "lost node": Ending("failed", 3, "ranks 2, 3 gave no sign of life", ranks=(2, 3), world_size=4),
    "lost rank": Ending("failed", 3, "rank 3 gave no sign of life", ranks=(3,), hosts=("n2",), world_size=4),
    "error": Ending("failed", 1, "rank 1 failed", author=1, host="n1", world_size=4),
}


class FakeSlurm:
    """Three nodes; `srun` writes down its words and ends as it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_dir = folder, folder / "run"
        self.run_dir.mkdir()
        tools = folder / "bin"
        tools.mkdir()
        calls = folder / "calls"
        note = f'echo "$(basename "$0") $*" >> {calls}\n'
        scripts = {
            "scontrol": note
            + '[ "$2" != hostnames ] || printf "%s\\n" n1 n2 n3\n[ "$2" != node ] || echo "NodeAddr=127.0.0.1"\n'
            + f'[ "$2" != job ] || cat {folder}/job 2>/dev/null || true\n'
            + f'[ "$1" != requeue ] || [ ! -e {folder}/deaf ] || {{ rm {folder}/deaf; echo "no answer" >&2; exit 1; }}\n',
            "scancel": note + f"touch {folder}/told\n",
            "squeue": f"cat {folder}/state 2>/dev/null || echo RUNNING\n",
            "sinfo": f"cat {folder}/states 2>/dev/null || true\n",
            "srun": note + f"NODE=$NNODES source {folder}/step\n",
        }
        for name, text in scripts.items():
            path = tools / name
            path.write_text("#!/bin/bash\n" + text, encoding="utf-8")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self._environment = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "SLURM_JOB_ID": "1000",
            "SLURM_JOB_NODELIST": "n[1-3]",
        }

    def ends(self, ending: Ending | None, code: int) -> None:
        """How the step of training ends: `RUN/ending.json`, and srun's code."""
        lines = f"exit {code}\n"
        if ending is not None:
            write_ending(self.folder, ending)
            lines = f"cp {self.folder}/ending.json {self.run_dir}/ending.json\n" + lines
        (self.folder / "step").write_text(lines, encoding="utf-8")

    def start(self, *overrides: str, **variables: str) -> subprocess.Popen[str]:
        """The job's process."""
        words = ["stage=pt1", "launcher=slurm", f"run_dir={self.run_dir}", "launcher.preflight.enabled=false"]
        (self.folder / "up").unlink(missing_ok=True)
        words += ["launcher.nproc_per_node=2", "launcher.nodes=3", "launcher.min_nodes=1", "train.global_batch_size=16"]
        config = compose([*words, "data.global_data_workers=48", "launcher.slurm.watch_nodes_seconds=0.1", *overrides])
        save_config(config, self.folder / "config.yaml")
        command = [sys.executable, "-m", "moss_train.launching.slurm_job", "--config", str(self.folder / "config.yaml")]
        return subprocess.Popen(
            command, cwd=self.folder, env=self._environment | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *overrides: str, **variables: str) -> tuple[int, str, str]:
        process = self.start(*overrides, **variables)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self, name: str) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{name} ")]

    def requeued(self) -> bool:
        return "requeue 1000" in self.calls("scontrol")

    def excluded(self) -> str:
        return next((word.partition("=")[2] for call in self.calls("scontrol") for word in call.split() if "ExcNode" in word), "")

    def events(self) -> list[dict[str, Any]]:
        path = self.run_dir / "launch" / "history.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def fake(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path)


@pytest.mark.parametrize("ending", ["finished", "data ended"])
def test_at_its_end(fake: FakeSlurm, ending: str) -> None:
    fake.ends(ENDINGS[ending], 0)
    code, out, _ = fake.run()
    assert code == 0 and "training is at its end" in out
    assert not fake.requeued()
    assert [event["event"] for event in fake.events()] == ["started", "training", "finished"]
    assert fake.events()[1]["nodes"] == ["n1", "n2"]  # 6 ranks cannot share a batch of 16, 4 can
    (words,) = fake.calls("srun")
    for option in ("--export=ALL", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=96", "--nodelist=n1,n2"):
        assert option in words.split(), words


@pytest.mark.parametrize(
    ("ending", "code", "exclude"),
    [("told", 0, ""), ("lost node", 3, "n2"), ("lost rank", 3, ""), ("error", 1, ""), (None, 137, "")],
)
def test_queued_again(fake: FakeSlurm, ending: str | None, code: int, exclude: str) -> None:
    """A node is excluded when all its ranks were lost at once, or the second time that a rank of it was to blame."""
    fake.ends(None if ending is None else ENDINGS[ending], code)
    assert fake.run()[0] == 0
    assert fake.requeued() and fake.excluded() == exclude
    if ending in ("lost rank", "error"):
        assert fake.run("launcher.slurm.exclude=n9")[0] == 0
        assert fake.excluded() == ("n9,n2" if ending == "lost rank" else "n9,n1")
    if exclude:  # the queue may give it all the same: the job leaves it out
        assert fake.run()[0] == 0
        assert fake.events()[-2]["event"] != "training" and [e["nodes"] for e in fake.events() if "nodes" in e][-1] == [
            "n1",
            "n3",
        ]


def test_bad_input_is_not_tried_again(fake: FakeSlurm) -> None:
    for ending, code in ((ENDINGS["bad input"], 1), (None, 2)):
        fake.ends(ending, code)
        assert fake.run()[0] == 2
        assert not fake.requeued()


def test_failures_are_counted_until_there_is_a_new_checkpoint(fake: FakeSlurm) -> None:
    fake.ends(None, 1)
    for _ in range(2):
        assert fake.run("launcher.slurm.max_restarts=2")[0] == 0
    assert History(fake.run_dir, "1000", 0).failures_without_progress() == 2
    checkpoint = fake.run_dir / "checkpoints" / "step_00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "checkpoint.json").write_text("{}")
    assert History(fake.run_dir, "1000", 0).failures_without_progress() == 0
    for _ in range(2):
        assert fake.run("launcher.slurm.max_restarts=2")[0] == 0
    code, _, err = fake.run("launcher.slurm.max_restarts=2")
    assert code == 1 and "for the 3. time without a new checkpoint" in err


def test_without_requeueing_the_next_element_goes_on_and_the_last_one_fails(fake: FakeSlurm) -> None:
    fake.ends(ENDINGS["told"], 0)
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "2"}
    code, out, _ = fake.run("launcher.slurm.requeue=false", **array)
    assert code == 0 and "the array's next element goes on" in out
    code, _, err = fake.run("launcher.slurm.requeue=false", **array | {"SLURM_ARRAY_TASK_ID": "2"})
    assert code == 75 and "the run is not at its end" in err
    assert not fake.requeued()


def _begun(fake: FakeSlurm, *overrides: str) -> subprocess.Popen[str]:
    """A job whose step is there."""
    process = fake.start(*overrides)
    deadline = time.monotonic() + 30
    while not (fake.folder / "up").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("how", ["limit", "term", "drain"])
def test_told_to_end(fake: FakeSlurm, how: str) -> None:
    """By the signal before the time limit, by a preemption, by an operator: scancel gives SIGTERM to the steps."""
    fake.ends(ENDINGS["told"], 0)
    step = fake.folder / "step"
    folder = fake.run_dir / "checkpoints" / "step_00000005"
    saves = f"mkdir -p {folder}; echo '{{}}' > {folder}/checkpoint.json\n"
    trains = f"sleep 0.1; echo >> {fake.run_dir}/metrics.jsonl; touch {fake.folder}/up\n"
    step.write_text(f"{trains}while [ ! -e {fake.folder}/told ]; do sleep 0.05; done\n{saves}{step.read_text()}")
    process = _begun(fake)
    if how == "drain":
        (fake.folder / "states").write_text("n1|allocated|none\nn2|draining@|a fan is loud\nn9|down|other\n")
    else:
        process.send_signal(signal.SIGUSR1 if how == "limit" else signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert fake.calls("scancel") == ["--signal=TERM 1000"]
    assert fake.requeued() and fake.excluded() == ""
    reason = {"limit": "the time limit is near", "term": "Slurm ends the job", "drain": "node n2 is draining@: a fan is loud"}[
        how
    ]
    assert fake.events()[-1]["why"] == reason and reason in out


def test_told_to_end_before_srun_has_started_its_tasks(fake: FakeSlurm) -> None:
    """They never get the signal. The time limit is as near at each start, so that these starts are counted."""
    (fake.folder / "step").write_text(f"touch {fake.folder}/up\nexec sleep 50\n")
    for restarts, code in ((1, 0), (1, 5)):
        process = _begun(fake, f"launcher.slurm.max_restarts={restarts}")
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=20) and process.returncode == code
        failed = next(event for event in reversed(fake.events()) if event["event"] == "failed")
        assert failed["why"].startswith("the time limit is near, and there is no new checkpoint since the start"), failed
    assert fake.calls("scontrol").count("requeue 1000") == 1


def test_step_that_does_not_end_is_given_up_before_the_time_limit(fake: FakeSlurm) -> None:
    """Slurm never starts a job again that reached it."""
    trains = f"sleep 0.1; echo >> {fake.run_dir}/metrics.jsonl; touch {fake.folder}/up\n"
    (fake.folder / "step").write_text(trains + "trap '' TERM\nexec sleep 50\n")
    process = _begun(fake, "launcher.slurm.signal_seconds=10")
    process.send_signal(signal.SIGUSR1)
    try:
        process.wait(25)
    finally:
        process.kill()
    assert fake.requeued()


def test_check_that_is_preempted_blames_nobody(fake: FakeSlurm) -> None:
    """With a grace time the steps get SIGTERM, the batch script does not."""
    (fake.folder / "step").write_text("exit 6\n")
    (fake.folder / "job").write_text("JobId=1000 StartTime=2026-11-28T01:00:00 PreemptTime=2026-11-28T01:00:09\n")
    assert fake.run("launcher.preflight.enabled=true")[0] == 0
    assert [event["event"] for event in fake.events()] == ["started", "queued again"]
    assert fake.events()[-1]["why"] == "Slurm preempts the job" and fake.excluded() == "" and fake.requeued()
    (fake.folder / "job").write_text("JobId=1000 StartTime=2026-11-28T02:00:00 PreemptTime=2026-11-28T01:00:09\n")
    assert fake.run("launcher.preflight.enabled=true")[0] == 0
    assert fake.excluded() == "n1"  # that was an earlier start: the first node did not take part


def test_check_that_was_told_to_end_blames_nobody(fake: FakeSlurm) -> None:
    (fake.folder / "step").write_text(f"trap 'exit 6' TERM\ntouch {fake.folder}/up\nwhile true; do sleep 0.05; done\n")
    process = _begun(fake, "launcher.preflight.enabled=true")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20) and process.returncode == 0
    assert fake.excluded() == "" and not (fake.run_dir / "launch" / "bad_nodes.jsonl").exists()


@pytest.mark.parametrize(("code", "ends"), [(140, 0), (2, 6)])
def test_check_that_broke_down_is_tried_again(fake: FakeSlurm, code: int, ends: int) -> None:
    """srun ends so where a node's daemon does not answer. Bad input stays bad."""
    (fake.folder / "step").write_text(f"exit {code}\n")
    assert fake.run("launcher.preflight.enabled=true")[0] == ends
    assert fake.requeued() == (ends == 0) and "failed" in [event["event"] for event in fake.events()]


def test_controller_that_does_not_answer_is_asked_again(fake: FakeSlurm) -> None:
    fake.ends(ENDINGS["told"], 0)
    (fake.folder / "deaf").touch()
    assert fake.run()[0] == 0
    assert fake.calls("scontrol").count("requeue 1000") == 2


def test_element_of_an_array_is_called_by_its_place(fake: FakeSlurm) -> None:
    """One element's own number is the array's as well: squeue would answer for all."""
    fake.ends(ENDINGS["told"], 0)
    array = {"SLURM_ARRAY_JOB_ID": "1000", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "3"}
    assert fake.run(**array)[0] == 0
    assert "requeue 1000_3" in fake.calls("scontrol")
    fake.ends(ENDINGS["error"], 1)
    assert fake.run("launcher.slurm.requeue=false", **array)[0] == 1
    assert fake.run("launcher.slurm.requeue=false", **array | {"SLURM_ARRAY_TASK_ID": "2"})[0] == 0  # what waits for all goes on


def test_ranks_that_torchrun_numbers_blame_no_node_without_its_name() -> None:
    lost = Ending("failed", 3, ranks=(2, 3), world_size=4)
    assert nodes_to_blame(lost, ["n1", "n2"], 2) == {"n2": 2}
    assert nodes_to_blame(lost, ["n1", "n2"], 2, in_order=False) == {}


def test_cancelled_is_not_queued_again(fake: FakeSlurm) -> None:
    fake.ends(ENDINGS["told"], 0)
    (fake.folder / "state").write_text("COMPLETING\n")
    code, out, _ = fake.run()
    assert code == 75 and "Slurm decides whether the job is queued again" in out
    assert not fake.requeued() and fake.events()[-1]["event"] == "ended by Slurm"


def test_too_few_nodes_are_left(fake: FakeSlurm) -> None:
    fake.ends(ENDINGS["finished"], 0)
    bad = fake.run_dir / "launch" / "bad_nodes.jsonl"
    bad.parent.mkdir()
    bad.write_text("".join(json.dumps({"node": node, "strikes": 2}) + "\n" for node in ("n1", "n3")))
    code, out, _ = fake.run("launcher.min_nodes=2")
    assert code == 0 and "1 of the nodes n1,n2,n3 can be used, and the run needs 2" in out
    assert fake.excluded() == "n1,n3" and not fake.calls("srun")
    bad.write_text("n1\n")
    code, _, err = fake.run()
    assert code == 2 and "bad_nodes.jsonl:1 is 'n1', no entry of a node; delete the line" in err


def test_outside_of_a_job(tmp_path: Path, fake: FakeSlurm) -> None:
    code, _, err = fake.run(SLURM_JOB_ID="", SLURM_JOB_NODELIST="")
    assert code == 2 and "SLURM_JOB_ID and SLURM_JOB_NODELIST not set" in err
