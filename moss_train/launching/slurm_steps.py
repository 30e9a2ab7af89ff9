"""The steps of a Slurm job, each one srun with one task a node: check of the nodes, caches, training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moss_train.config.schema import RunConfig
from moss_train.launching.container import srun_options, torchrun_command, wrap
from moss_train.launching.environment import interpreter
from moss_train.launching.folder import job_dir, log_dir
from moss_train.preflight.report import EXIT_BAD_NODE

EXIT_BAD_INPUT = 2
MOST_ADDED_TO_THE_PORT = 999
MOSS = "moss_train.cli.main"


@dataclass(frozen=True)
class Checked:
    """What the check of the nodes has found."""

    bad: Mapping[str, str] = field(default_factory=dict)
    """Node -> why it must be left out."""
    faults: tuple[str, ...] = ()
    """What is wrong that is no single node's."""
    answered: bool = True
    """False where the step broke down before there was a report: the next start may do better."""


class Steps:
    """Starts steps on chosen nodes of the job.

    Args:
        config_path: the frozen configuration, which every node reads.
        job: number of the job.
        wait: waits for an srun and gives its exit code.
    """

    def __init__(self, config: RunConfig, config_path: Path, job: str, wait: Callable[[subprocess.Popen[bytes]], int]) -> None:
        self._config, self._path, self._wait = config, config_path, wait
        digits = int("".join(c for c in job if c.isdigit()) or "0")
        self._port = config.launcher.master_port + digits % (MOST_ADDED_TO_THE_PORT + 1)  # two jobs on one node differ

    def check(self, nodes: Sequence[str], address: str) -> Checked:
        """`moss preflight` on the nodes."""
        out = job_dir(self._config.run_dir) / "preflight"
        report = out / "report.json"
        report.unlink(missing_ok=True)
        code = self._srun("preflight", nodes, address, self._moss("preflight", "--config", str(self._path), "--out", str(out)))
        try:
            found = json.loads(report.read_text(encoding="utf-8"))
            bad = {str(entry["node"]): str(entry["why"]) for entry in found["bad"] if entry["node"] in nodes}
            return Checked(bad, tuple(str(fault) for fault in found["faults"]))
        except (OSError, ValueError, KeyError, TypeError):
            if code == EXIT_BAD_NODE:  # the others waited for the first node, which writes the report
                return Checked({nodes[0]: "it did not take part in the check of the nodes"})
            why = f"the check of the nodes left no report and ended with exit code {code}; see its output"
            return Checked({}, (why,), answered=code == EXIT_BAD_INPUT)

    def fill_caches(self, nodes: Sequence[str], address: str) -> None:
        """`moss data cache` on the nodes; a cache that could not be filled costs time, no more."""
        if self._config.launcher.cache.folder:
            code = self._srun("cache", nodes, address, self._moss("data", "cache", "--config", str(self._path)))
            if code:
                print(f"moss: a cache of shards was not filled (exit code {code}); they are read where they are", file=sys.stderr)

    def train(self, nodes: Sequence[str], address: str) -> int:
        """Train with one torchrun a node; its exit code."""
        return self._srun("train", nodes, address, [*torchrun_command(self._config), "--config", str(self._path)])

    def _moss(self, *words: str) -> list[str]:
        return [interpreter(self._config), "-m", MOSS, *words]

    def _srun(self, name: str, nodes: Sequence[str], address: str, command: Sequence[str]) -> int:
        """One task on each of the nodes, the first of which is rank 0 of them.

        Args:
            address: of the first node.
        """
        here, config = Path.cwd(), self._config
        words = ["srun", f"--job-name={name}", f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1"]
        # srun takes one core a task by itself, whatever the job has asked for (Slurm 22.05 and newer)
        words += [f"--cpus-per-task={config.launcher.slurm.cpus_per_task}"]
        words += [f"--nodelist={','.join(nodes)}", "--distribution=block", f"--kill-on-bad-exit={int(name == 'train')}"]
        words += ["--export=ALL"]  # where sbatch was told to export nothing, srun would keep NNODES and the rest to itself
        logs = str(log_dir(config, here)).replace("%", "%%")
        words += ["--wait=0", f"--output={logs}/%x-%j-{name}-%N.out", "--open-mode=append"]
        words += [*config.launcher.slurm.srun, *srun_options(config, here)]
        # the number of the task, not of the node in the job: the step may leave nodes of the job out
        task = wrap(["bash", "-c", 'NODE_RANK=$SLURM_PROCID exec "$0" "$@"', *command], config, here)
        variables = {"NNODES": str(len(nodes)), "MASTER_ADDR": address, "MASTER_PORT": str(self._port)}
        return self._wait(subprocess.Popen([*words, *task], env=os.environ | variables))
