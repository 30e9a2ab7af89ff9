"""Training of the tiny model on hosts, started as a user does: launch/torchrun.sh on each of them, with one shared run folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moss_train.launching.folder import launch_dir
from tests.cluster.hosts.namespaces import Host
from tests.moss_train.runs import run_config, save_run_config
from tests.ranks import REPOSITORY

ENDLESS = 5000
"""Steps of runs that are told to end when all has happened."""
LOST_SECONDS = 6.0


class Run:
    """One run folder, its config, and torchrun.sh on some hosts.

    Args:
        data: made by `write_data`.
        folder: for the run folder, the config and each host's output.
        steps: to train; the learning rate is the same from the first, so that no step depends on it.
    """

    def __init__(self, data: Path, folder: Path, steps: int, save_every: int = 1000) -> None:
        self.folder, self.run_dir = folder, folder / "run"
        config = run_config(
            data,
            self.run_dir,
            steps=steps,
            stage__schedule="constant",
            stage__warmup_ratio=0.0,
            stage__learning_rate=3e-4,
            train__global_batch_size=4,
            train__save_every=save_every,
            guard__lost_rank_seconds=LOST_SECONDS,
        )
        self.config = save_run_config(config, folder / "config.yaml")

    def start(
        self, host: Host, hosts: int, ranks: int = 1, first: str | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start it on one of the hosts.

        Args:
            hosts: of the world, at most.
            ranks: on this host.
            first: address of the first host where that is not 10.77.0.1.
            environment: what torchrun.sh reads besides.
        """
        unset = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GLOO_SOCKET_IFNAME")
        given = {name: value for name, value in os.environ.items() if name not in unset}
        given |= {"PYTHON": sys.executable, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        given |= {"NNODES": str(hosts), "NODE_RANK": str(host.number), "NPROC_PER_NODE": str(ranks)}
        given |= {"MASTER_ADDR": first or "10.77.0.1"} if hosts > 1 else {}
        command = ["bash", str(launch_dir() / "torchrun.sh"), "--config", str(self.config)]
        return host.start(command, self.output_of(host), given | environment, self.folder)

    def output_of(self, host: Host) -> Path:
        """What its torchrun and ranks wrote, of all starts."""
        return self.folder / f"{host.name}.txt"

    def steps(self) -> dict[int, dict[str, Any]]:
        """Metrics by step; of a step that was trained twice the later ones."""
        return {line["step"]: line for line in self._lines("metrics.jsonl") if "loss" in line}

    @property
    def newest(self) -> int:
        """The newest step."""
        return max(self.steps(), default=0)

    def starts(self) -> list[tuple[int, int]]:
        """Of each start the step that it went on from, and its ranks."""
        return [(line["step"], line["ranks"]) for line in self._lines("events.jsonl") if line["event"] == "started"]

    def wait_for(self, what: Callable[[Run], bool], seconds: float = 120.0) -> None:
        """Until it holds."""
        deadline = time.monotonic() + seconds
        while not what(self):
            assert time.monotonic() < deadline, self.everything()
            time.sleep(0.05)

    def everything(self) -> str:
        """For whoever reads why a test failed."""
        texts = [f"== {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in sorted(self.folder.glob("*.txt"))]
        return "\n".join([*texts, f"starts: {self.starts()}", f"newest step: {self.newest}"])

    def errors_of(self, host: Host) -> list[str]:
        """Sentences that end a run."""
        text = self.output_of(host).read_text(errors="replace")
        return [line for line in text.splitlines() if line.startswith("moss: error: ")]

    def _lines(self, name: str) -> list[Any]:
        path = self.run_dir / name
        text = path.read_text() if path.is_file() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def tell_to_end(processes: list[subprocess.Popen[bytes]]) -> None:
    """As a scheduler does: the ranks save and end."""
    for process in processes:
        process.send_signal(signal.SIGTERM)


def end(run: Run, processes: list[subprocess.Popen[bytes]], seconds: float = 120.0) -> list[int]:
    """Wait for torchrun on every host; the exit codes."""
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"torchrun of {run.run_dir} runs on after {seconds} s\n{run.everything()}") from None
    return [process.returncode for process in processes]


def assert_same_losses(run: Run, reference: Run, steps: int, tolerance: float = 0.0) -> None:
    """The global batches of all these steps are the same, and their losses within a relative tolerance."""
    found, expected = run.steps(), reference.steps()
    assert sorted(found)[:steps] == list(range(1, steps + 1)), run.everything()
    differences: dict[int, float] = {}
    for step in range(1, steps + 1):
        mine, other = found[step], expected[step]
        for name in ("targets", "tokens", "frames", "dataset_samples"):
            assert mine[name] == other[name], f"step {step}: {name} {mine[name]}, not {other[name]}"
        differences[step] = abs(mine["loss"] - other["loss"]) / abs(other["loss"])
    worst = max(differences, key=lambda step: differences[step])
    print(f"largest relative difference of losses in {steps} steps: {differences[worst]:.2e} in step {worst}")
    assert differences[worst] <= tolerance, f"step {worst}: {found[worst]['loss']}, not {expected[worst]['loss']}"
