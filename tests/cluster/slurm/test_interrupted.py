"""A job that is preempted, loses a node to the operator and goes on with fewer: the losses are those of an uninterrupted run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.slurm.daemons import Slurm, wait_for
from tests.cluster.slurm.runs import cluster_run, history, output, rows, submit, uninterrupted

pytestmark = [pytest.mark.cluster, pytest.mark.ranks, pytest.mark.timeout(600)]

STEPS = 240


def test_preempted_then_drained(slurm: Slurm, data: Path, tmp_path: Path) -> None:
    config = cluster_run(data, tmp_path / "run", STEPS, {"min_nodes": 1}, {})
    whole = uninterrupted(config, tmp_path / "whole")
    assert [row["step"] for row in whole] == list(range(1, STEPS + 1))
    job = submit(slurm, config, tmp_path)

    def more() -> str:
        return f"{slurm.logs()}\n{history(config.run_dir)}\n{output(config.run_dir)}"

    wait_for(lambda: len(rows(config.run_dir)) >= 40, 120, "40 steps", more)
    other = slurm.run("sbatch", "--parsable", "-p", "high", "-N", "3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
    wait_for(lambda: slurm.job(other)["JobState"] == "COMPLETED", 60, "the job that preempts", more)
    slurm.run("scontrol", "update", "nodename=n3", "state=drain", "reason=taken")
    wait_for(lambda: len(rows(config.run_dir)) >= 120, 120, "80 more steps", more)
    slurm.run("scontrol", "update", "nodename=n2", "state=drain", "reason=a fan is loud")
    try:
        fields = slurm.wait_for_end(job, 120)
    finally:
        for node in ("n2", "n3"):
            slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
    assert fields["JobState"] == "COMPLETED", more()
    assert fields["Restarts"] == "2"
    events = history(config.run_dir)
    assert [event["nodes"] for event in events if event["event"] == "training"] == [["n1", "n2"], ["n1", "n2"], ["n1"]], more()
    reasons = [event["why"] for event in events if event["event"] == "queued again"]
    assert reasons[0] == "the ranks were told to end" and reasons[1] == "node n2 is draining: a fan is loud"
    found = rows(config.run_dir)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    shrunk = next(event["checkpoint"] for event in events if event["event"] == "training" and event["nodes"] == ["n1"])
    assert 120 <= shrunk < STEPS
    assert found[:shrunk] == whole[:shrunk]  # bit for bit on two nodes, whatever interrupted it
    for one, two in zip(found[shrunk:], whole[shrunk:], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)  # one rank adds in another order


@pytest.mark.slow
def test_real_time_limit(slurm: Slurm, data: Path, tmp_path: Path) -> None:
    """Slurm counts limits in minutes and may signal up to a minute too early."""
    config = cluster_run(data, tmp_path / "run", 100_000, {}, {"time": "00:02:00", "signal_seconds": 60})
    job = submit(slurm, config, tmp_path)
    wait_for(lambda: slurm.job(job)["Restarts"] == "1" and slurm.job(job)["JobState"] == "RUNNING", 200, "a second start")
    steps = len(rows(config.run_dir))
    wait_for(lambda: len(rows(config.run_dir)) > steps, 60, "further steps", lambda: output(config.run_dir))
    slurm.run("scancel", job)
    events = history(config.run_dir)
    assert [event["event"] for event in events[:4]] == ["started", "training", "queued again", "started"]
    assert events[2]["why"] == "the time limit is near" and events[2]["checkpoint"] == steps


def test_cancelled_is_not_queued_again(slurm: Slurm, data: Path, tmp_path: Path) -> None:
    """It saves all the same, and the same command goes on from there."""
    config = cluster_run(data, tmp_path / "run", 100_000, {}, {})
    job = submit(slurm, config, tmp_path)
    wait_for(lambda: len(rows(config.run_dir)) >= 10, 120, "10 steps", lambda: output(config.run_dir))
    slurm.run("scancel", job)
    assert slurm.wait_for_end(job, 60)["JobState"] == "CANCELLED"
    wait_for(lambda: not slurm.squeue(), 60, "an empty queue")
    assert slurm.job(job)["Restarts"] == "0"
    assert history(config.run_dir)[-1]["event"] == "ended by Slurm" and history(config.run_dir)[-1]["checkpoint"] >= 10
