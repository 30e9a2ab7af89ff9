"""Nodes are checked before training: one with other source files is left out, within the same allocation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cluster.slurm.daemons import Slurm
from tests.cluster.slurm.runs import cluster_run, history, output, rows, submit
from tests.ranks import REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.ranks, pytest.mark.timeout(600)]


def test_node_with_another_version(slurm: Slurm, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("moss_train", "model", "data_pipeline", "conf", "launch"):
        shutil.copytree(REPOSITORY / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "moss_train" / "step.py").open("a") as file:
        file.write("# an update that has not reached the other nodes\n")
    config = cluster_run(data, tmp_path / "run", 4, {"nodes": 3, "min_nodes": 2, "preflight": {"enabled": True}}, {})
    config.data.global_data_workers, config.train.global_batch_size = 6, 6
    with slurm.variables("n2", {"PYTHONPATH": str(other), "OMP_NUM_THREADS": "1"}):
        job = submit(slurm, config, tmp_path)
        fields = slurm.wait_for_end(job, 240)
    more = f"{slurm.logs()}\n{history(config.run_dir)}\n{output(config.run_dir)}"
    assert fields["JobState"] == "COMPLETED" and fields["Restarts"] == "0", more
    assert [event["nodes"] for event in history(config.run_dir) if event["event"] == "training"] == [["n1", "n3"]], more
    assert len(rows(config.run_dir)) == 4
    bad = [json.loads(line) for line in (tmp_path / "run" / "launch" / "bad_nodes.jsonl").read_text().splitlines()]
    assert [entry["node"] for entry in bad] == ["n2"] and "source" in bad[0]["why"], bad
    report = json.loads((tmp_path / "run" / "launch" / "preflight" / "report.json").read_text())
    assert set(report["nodes"]) == {"n1", "n2", "n3"}
