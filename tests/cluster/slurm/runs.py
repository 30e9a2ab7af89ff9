"""Runs of the tiny model as Slurm jobs, and what is read from their folders."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from moss_train.config.cluster import PreflightConfig, SlurmConfig
from moss_train.config.launcher import LauncherConfig
from moss_train.config.schema import RunConfig
from moss_train.parallel.local_ranks import start_local_ranks
from tests.cluster.slurm.daemons import Slurm
from tests.moss_train.runs import run_config, save_run_config
from tests.ranks import REPOSITORY


def cluster_run(data: Path, run_dir: Path, steps: int, launcher: dict[str, Any], slurm: dict[str, Any]) -> RunConfig:
    """Two nodes of one CPU rank each, in the partition that is preempted."""
    config = run_config(data, run_dir, "pt1", steps, train__eval_batches=0, train__save_every=10_000, device="cpu")
    usual: dict[str, Any] = {"partition": "low", "gpus": "none", "cpus_per_task": 1, "memory": "100", "signal_seconds": 60}
    usual |= {"watch_nodes_seconds": 1.0}
    settings: dict[str, Any] = {"kind": "slurm", "nodes": 2, "nproc_per_node": 1, "env": {"OMP_NUM_THREADS": "1"}} | launcher
    settings["preflight"] = PreflightConfig(**settings.get("preflight", {}))
    return dataclasses.replace(config, launcher=LauncherConfig(**settings, slurm=SlurmConfig(**usual | slurm)))


def launch(cluster: Slurm, *words: str, folder: Path) -> str:
    """Output of `moss launch slurm WORDS`."""
    done = subprocess.run(
        [sys.executable, "-m", "moss_train.cli.main", "launch", "slurm", *words],
        env=cluster.environment | {"PYTHONPATH": str(REPOSITORY)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def submit(cluster: Slurm, config: RunConfig, folder: Path) -> str:
    """The number of the job of a run."""
    path = save_run_config(config, folder / f"{Path(config.run_dir).name}.yaml")
    return launch(cluster, "--config", str(path), folder=folder).split()[2].rstrip(":")


def uninterrupted(config: RunConfig, run_dir: Path) -> list[dict[str, Any]]:
    """Metrics of the same run in two ranks of this machine."""
    path = save_run_config(dataclasses.replace(config, run_dir=str(run_dir)), run_dir.with_suffix(".yaml"))
    os.environ.setdefault("PYTHONPATH", str(REPOSITORY))
    assert start_local_ranks(2, "moss_train.cli.main", ["train", "--config", str(path)]) == 0
    return rows(run_dir)


def rows(run_dir: str | Path) -> list[dict[str, Any]]:
    """What is the same in every run of the same steps, of each step."""
    path = Path(run_dir) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    keys = ("step", "loss", "gradient_norm", "learning_rate")
    return [{key: row[key] for key in keys if key in row} for row in map(json.loads, filter(_whole, lines)) if "loss" in row]


def _whole(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")


def history(run_dir: str | Path) -> list[dict[str, Any]]:
    """Lines of RUN/launch/history.jsonl."""
    path = Path(run_dir) / "launch" / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def output(run_dir: str | Path) -> str:
    """Everything that the run's jobs have printed."""
    return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(Path(run_dir).glob("logs/*")))
