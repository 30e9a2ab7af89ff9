"""Slurm's commands as a job needs them: names and addresses of nodes, their states, signals, requeueing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

LEAVING = ("drain", "fail", "down", "maint", "not_responding")
"""Beginnings of states, in small letters, of a node that its job should leave. A node with a job that is being drained is
`draining`, one that is also allocated to others `drng`."""
_TRIES = 20


def _output(command: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def hostnames(nodelist: str) -> list[str]:
    """`gpu-[1-2]` -> gpu-1, gpu-2."""
    code, text = _output(["scontrol", "show", "hostnames", nodelist])
    return text.split() if code == 0 else nodelist.split(",")


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
    try:
        code, text = _output(["sinfo", "--noheader", "--Node", f"--nodes={','.join(nodes)}", "--format=%N|%T|%E"])
    except (OSError, subprocess.TimeoutExpired):
        return {}
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
    """As scontrol takes it."""

    def tell_steps(self, name: str) -> None:
        """Send a signal to the processes of all steps. srun itself answers SIGTERM by killing them."""
        _output(["scancel", f"--signal={name}", self.number])

    def runs(self) -> bool:
        """Whether Slurm lets the job go on: not where it is cancelled, or already queued again by Slurm itself."""
        code, text = _output(["squeue", "--noheader", f"--jobs={self.number}", "--states=all", "--format=%T"])
        return code != 0 or text.strip() in ("RUNNING", "SUSPENDED")

    def requeue(self, exclude: Sequence[str]) -> bool:
        """Queue the job again, kept away from nodes. Slurm then ends this process, as soon as it likes.

        Returns:
            Whether Slurm has taken it.
        """
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
