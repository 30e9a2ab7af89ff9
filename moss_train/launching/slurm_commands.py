"""Slurm's commands as a job needs them: names and addresses of nodes, their states, signals, requeueing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import InputError

LEAVING = ("drain", "fail", "down", "maint", "not_responding")
"""Beginnings of states, in small letters, of a node that its job should leave. A node with a job that is being drained is
`draining`, one that is also allocated to others `drng`."""
_TRIES = 20
_PAUSES = (2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try to queue the job again: a controller that is restarted does not answer."""


def _output(command: Sequence[str]) -> tuple[int, str]:
    """Exit code and output; a controller that does not answer is a failure like another."""
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def hostnames(nodelist: str) -> list[str]:
    """`gpu-[1-2]` -> gpu-1, gpu-2.

    Raises:
        InputError: scontrol does not say it.
    """
    code, text = _output(["scontrol", "show", "hostnames", nodelist])
    if code != 0:
        raise InputError(f"scontrol show hostnames {nodelist} failed: {text.strip()}; is Slurm's bin folder on PATH?")
    return text.split()


def address_of(node: str) -> str:
    """The node's name where it can be looked up, else the address that Slurm knows."""
    try:
        socket.getaddrinfo(node, None)
        return node
    except OSError:
        _, text = _output(["scontrol", "show", "node", node, "--oneliner"])
        return next((word.partition("=")[2] for word in text.split() if word.startswith("NodeAddr=")), node)


def leaving(nodes: Sequence[str]) -> dict[str, str]:
    """Node -> state and reason, for those that are drained, failing or down. Empty where Slurm does not answer."""
    code, text = _output(["sinfo", "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N|%T|%E"])
    rows = [line.split("|", 2) for line in text.splitlines()] if code == 0 else []
    return {
        name: f"{state}: {reason}"
        for name, state, reason in (row for row in rows if len(row) == 3)
        if name in nodes and state.lower().rstrip("*$~#!%@^-").startswith(LEAVING)
    }


@dataclass(frozen=True)
class Job:
    """The job that this process belongs to."""

    number: str
    """As scontrol takes it; of an element of an array ARRAY_ELEMENT, since the number of one of them is that of the array."""

    def tell_steps(self, name: str) -> None:
        """Send a signal to the processes of all steps. srun itself answers SIGTERM by killing them."""
        _output(["scancel", f"--signal={name}", self.number])

    def runs(self) -> bool:
        """Whether Slurm lets the job go on: not where it is cancelled, or already queued again by Slurm itself."""
        code, text = _output(["squeue", "--noheader", f"--jobs={self.number}", "--states=all", "--format=%T"])
        return code != 0 or text.strip() in ("RUNNING", "SUSPENDED")

    def preempted(self) -> bool:
        """Whether Slurm is taking the job's nodes away for another one. Its steps get SIGTERM then, its batch script does not."""
        code, text = _output(["scontrol", "show", "job", self.number, "--oneliner"])
        fields = dict(word.partition("=")[::2] for word in text.split()) if code == 0 else {}
        when = fields.get("PreemptTime", "")
        return when[:1].isdigit() and when >= fields.get("StartTime", "")  # not the preemption of an earlier start

    def requeue(self, exclude: Sequence[str]) -> bool:
        """Queue the job again, kept away from nodes. Slurm then ends this process, as soon as it likes.

        Returns:
            Whether Slurm has taken it.
        """
        code, text = _output(["scontrol", "requeue", self.number])
        for pause in _PAUSES:
            if code == 0:
                break
            time.sleep(pause)
            code, text = _output(["scontrol", "requeue", self.number])
        if code != 0:
            print(f"moss: scontrol requeue {self.number} failed: {text.strip()}", file=sys.stderr, flush=True)
            return False
        for _ in range(_TRIES if exclude else 0):  # nodes can be excluded from the moment at which the job counts as queued
            code, text = _output(["scontrol", "update", f"JobId={self.number}", f"ExcNodeList={','.join(exclude)}"])
            if code == 0:
                return True
            time.sleep(0.3)
        if exclude:
            print(f"moss: nodes {','.join(exclude)} could not be excluded: {text.strip()}", file=sys.stderr, flush=True)
        return True
