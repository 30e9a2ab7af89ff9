"""A Slurm of its own: munged, slurmctld, and one slurmd for each node name, all in a temporary folder."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "squeue", "scancel")

_CONF = """
ClusterName=moss
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/task_prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=60
KillWait=20
SlurmdParameters=config_overrides
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
# A requeued job waits as long as a credential lives (two minutes by default) before it may start again.


def why_not() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not on PATH (Debian: slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "Slurm's daemons need root"


class Slurm:
    """A running cluster. Commands see it through `environment`."""

    def __init__(self, folder: Path, nodes: tuple[str, ...], cpus: int = 2) -> None:
        self.folder, self.nodes = folder, nodes
        self.why_not_up = ""
        """Why its daemons did not come up; empty where they did."""
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        host, ports = socket.gethostname().partition(".")[0], _ports(len(nodes) + 1)
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=4000"
            for node, port in zip(nodes, ports[1:], strict=True)
        ]
        for name in ("state", "log", "munge", *(f"spool/{node}" for node in nodes)):
            (folder / name).mkdir(parents=True)
        text = _CONF.format(host=host, port=ports[0], folder=folder, nodes="\n".join(lines))
        (folder / "slurm.conf").write_text(text, encoding="utf-8")
        prolog = folder / "task_prolog"  # whatever it prints as `export NAME=VALUE` is set in the tasks of a step
        prolog.write_text(f"#!/bin/sh\ncat {folder}/variables-$SLURMD_NODENAME 2>/dev/null || true\n")
        prolog.chmod(0o755)
        (folder / "munge").chmod(0o700)
        key = folder / "munge" / "key"
        key.write_bytes(random.SystemRandom().randbytes(1024))
        key.chmod(0o400)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons and wait until all nodes are idle."""
        munge = self.folder / "munge"
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        wait_for(lambda: (munge / "socket").exists(), 20, "munged's socket")
        self._daemon("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        for node in self.nodes:
            self._daemon("slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))
        wait_for(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), 60, "idle nodes", self.logs)

    def stop(self) -> None:
        """End jobs and daemons."""
        if not self.why_not_up:
            subprocess.run(["scancel", "--user=root"], env=self.environment, capture_output=True, check=False, timeout=60)
        end = time.monotonic() + 20
        while not self.why_not_up and time.monotonic() < end and self.squeue():
            time.sleep(0.3)
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str) -> str:
        """A command's output; it must succeed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    @contextmanager
    def variables(self, node: str, values: dict[str, str]) -> Iterator[None]:
        """Environment variables of the steps' tasks on one node, as a fault in its installation gives them.

        Not on the first node of a job: the batch script has them too, and gives them to all nodes.
        """
        path = self.folder / f"variables-{node}"
        path.write_text("".join(f"export {name}={value}\n" for name, value in values.items()))
        try:
            yield
        finally:
            path.unlink()

    def states(self) -> dict[str, str]:
        """Node -> its state, such as idle, allocated, draining."""
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "low", "-o", "%N %T"], env=self.environment, capture_output=True, text=True, check=False
        )
        return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)

    def squeue(self) -> list[str]:
        """Job and state of all that is not at its end."""
        done = subprocess.run(
            ["squeue", "-h", "-o", "%i %T"], env=self.environment, capture_output=True, text=True, check=False, timeout=20
        )
        return done.stdout.splitlines()

    def job(self, number: str) -> dict[str, str]:
        """Slurm's fields of a job."""
        text = self.run("scontrol", "show", "job", number, "--oneliner")
        return dict(word.partition("=")[::2] for word in text.split() if "=" in word)

    def wait_for_end(self, number: str, seconds: float) -> dict[str, str]:
        """The fields of a job that has ended."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE", "OUT_OF_MEMORY")
        wait_for(lambda: self.job(number)["JobState"] in ended, seconds, f"the end of job {number}", self.logs)
        return self.job(number)

    def logs(self) -> str:
        """The newest lines of all daemons, and the queue."""
        parts = [" ".join(self.squeue()), str(self.states())]
        parts += [f"{path.name}:\n" + "\n".join(path.read_text().splitlines()[-15:]) for path in self.folder.glob("log/*.log")]
        return "\n".join(parts)

    def _daemon(self, *command: str) -> None:
        with (self.folder / "log" / f"{command[0]}.out").open("ab") as out:
            self._processes.append(subprocess.Popen(command, env=self.environment, stdout=out, stderr=out))


@contextmanager
def running(folder: Path, nodes: tuple[str, ...] = ("n1", "n2", "n3")) -> Iterator[Slurm]:
    """A cluster that lasts as long as the context."""
    cluster = Slurm(folder, nodes)
    try:
        try:
            cluster.start()
        except (AssertionError, OSError) as error:
            cluster.why_not_up = str(error)
        yield cluster
    finally:
        cluster.stop()


def wait_for(what: Callable[[], object], seconds: float, name: str, more: Callable[[], str] = str) -> None:
    """Wait until `what()` is true; the test fails, with `more()`, where it is not in time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {name}\n{more()}"
        time.sleep(0.2)


def _ports(count: int) -> list[int]:
    """Below the range from which the system gives out ports, so that nobody else is given one before the daemon listens."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(15000, 29000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found
