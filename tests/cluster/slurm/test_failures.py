"""A node on which training dies is left out, and stages follow one another through segments of an array."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from moss_train.checkpoint.description import newest_checkpoint, read_description
from moss_train.guards.ending import read_ending
from tests.cluster.slurm.daemons import Slurm, wait_for
from tests.cluster.slurm.runs import cluster_run, history, launch, output, rows, submit

pytestmark = [pytest.mark.cluster, pytest.mark.ranks, pytest.mark.timeout(600)]


def _processes_of(node: str, run_dir: Path) -> list[int]:
    """Training processes of a run on a node: Slurm's daemons cannot be told apart, their children's variables can."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"SLURMD_NODENAME={node}".encode() in variables and str(run_dir).encode() in words and b"cli.main" in words:
            found.append(int(folder.name))
    return found


def test_node_that_dies_is_left_out(slurm: Slurm, data: Path, tmp_path: Path) -> None:
    """Its processes are killed at once, as a machine's that loses power; Slurm believes that the node is well."""
    config = cluster_run(data, tmp_path / "run", 120, {}, {})
    config.guard.lost_rank_seconds = 5.0
    config.train.save_every = 20
    job = submit(slurm, config, tmp_path)

    def more() -> str:
        return f"{slurm.logs()}\n{history(config.run_dir)}\n{output(config.run_dir)}"

    wait_for(lambda: len(rows(config.run_dir)) >= 30, 120, "30 steps", more)
    killed = _processes_of("n2", tmp_path / "run")
    assert len(killed) >= 2  # torchrun and its rank
    for number in killed:
        os.kill(number, signal.SIGKILL)
    fields = slurm.wait_for_end(job, 180)
    assert fields["JobState"] == "COMPLETED" and fields["Restarts"] == "1", more()
    assert fields["ExcNodeList"] == "n2", more()
    events = history(config.run_dir)
    assert [event["nodes"] for event in events if event["event"] == "training"] == [["n1", "n2"], ["n1", "n3"]]
    failure = next(event for event in events if event["event"] == "failed")
    assert failure["code"] == 3 and "rank 1 on host n2 gave no sign of life" in failure["why"], failure
    assert failure["checkpoint"] == 20
    assert sorted({row["step"] for row in rows(config.run_dir)}) == list(range(1, 121))
    bad = [json.loads(line) for line in (tmp_path / "run" / "launch" / "bad_nodes.jsonl").read_text().splitlines()]
    assert [(entry["node"], entry["strikes"]) for entry in bad] == [("n2", 2)]


def test_stages_in_segments(slurm: Slurm, data: Path, tmp_path: Path) -> None:
    """`pt1` is told to end in the first element of its array and reaches its end in the second; then `pt2` starts from it."""
    words = ["model=tiny", "model.text.vocab_size=300", "precision=fp32", "device=cpu", "stage.sequence_length=96"]
    words += ["stage.max_frames_per_pack=8", f"data.root={data}", "data.mixture={text: 1, image: 1, video: 1}"]
    words += ["data.global_data_workers=2", "train.global_batch_size=2", "logging=disabled", "run_dir=all"]
    words += ["launcher.nodes=2", "launcher.nproc_per_node=1", "launcher.gpu=", "launcher.preflight.enabled=false"]
    words += [f"launcher.slurm.{setting}" for setting in ("gpus=none", "cpus_per_task=1", "memory='100'", "requeue=false")]
    chain = ["--chain", "stage=pt1 train.steps=120 launcher.slurm.segments=2", "--chain", "stage=pt2 train.steps=3"]
    jobs = re.findall(r"Slurm job (\d+): (\w+)", launch(slurm, *chain, *words, folder=tmp_path))
    assert [stage for _, stage in jobs] == ["pt1", "pt2"]
    first, second = jobs[0][0], jobs[1][0]
    assert slurm.job(second)["JobState"] == "PENDING"
    run = tmp_path / "all" / "pt1"

    def more() -> str:
        return f"{slurm.logs()}\n{history(run)}\n{output(run)}\n{output(tmp_path / 'all' / 'pt2')}"

    wait_for(lambda: len(rows(run)) >= 20, 120, "20 steps", more)
    slurm.run("scancel", "--signal=USR1", "--batch", f"{first}_1")  # as Slurm does before the time limit
    fields = slurm.wait_for_end(second, 240)
    assert fields["JobState"] == "COMPLETED", more()
    events = history(run)
    assert [event["event"] for event in events] == ["started", "training", "stopped", "started", "training", "finished"]
    assert events[2]["why"] == "the time limit is near" and 20 <= events[2]["checkpoint"] < 120
    assert [row["step"] for row in rows(run)] == list(range(1, 121))
    start = (tmp_path / "all" / "pt2" / "logs").glob("*train*")
    assert any("all/pt1/checkpoints/step_00000120 (stage pt1)" in path.read_text() for path in start)
    newest = newest_checkpoint(tmp_path / "all" / "pt2")
    assert newest is not None and read_description(newest).step == 3


def test_what_depends_on_a_failure_does_not_start(slurm: Slurm, data: Path, tmp_path: Path) -> None:
    config = cluster_run(data, tmp_path / "run", 3, {}, {})
    config.data.root = str(tmp_path / "nowhere")
    job = submit(slurm, config, tmp_path)
    path = tmp_path / "run.yaml"
    words = launch(slurm, "--config", str(path), "--after", job, f"run_dir={tmp_path / 'next'}", folder=tmp_path)
    number = words.split()[2].rstrip(":")
    assert slurm.wait_for_end(job, 120)["JobState"] == "FAILED"
    assert slurm.job(job)["ExitCode"] == "2:0" and slurm.job(job)["Restarts"] == "0"
    assert slurm.wait_for_end(number, 60)["JobState"] == "CANCELLED"
    assert "nowhere" in output(tmp_path / "run")
    ending = read_ending(tmp_path / "run")
    assert ending is not None and ending.code == 2  # srun's code is that of the node which it ended first
