"""What a pod does: waits for the first node's name, checks the node, fills its cache, trains.

    python3 -m moss_train.launching.kubernetes.pod --config /etc/moss/config.yaml

Reads NODE_RANK, or else JOB_COMPLETION_INDEX (of a Job) or RANK (of a PyTorchJob), and MASTER_ADDR and MASTER_PORT. SIGTERM is
passed on to the ranks, which save and end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from model.errors import InputError
from moss_train.config.compose import load_config
from moss_train.config.schema import RunConfig
from moss_train.guards.ending import Ending, forget_ending, read_ending
from moss_train.launching.container import torchrun_command
from moss_train.launching.environment import torchrun_environment
from moss_train.launching.folder import job_dir
from moss_train.launching.kubernetes.codes import EXIT_AGAIN, EXIT_BAD_INPUT, Stamp, exit_code, nothing_left
from moss_train.launching.kubernetes.failures import retry_code
from moss_train.preflight.report import EXIT_BAD_NODE, FILE

SECONDS_FOR_THE_FIRST = 600.0
"""How long the first pod is waited for. Its name is known when it was given a node, before its image is there."""
SECONDS_FOR_THE_ENDING = 5.0
"""How long the first rank's word about the end is waited for, on other nodes."""
_OF_AN_OPERATOR = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Set for pods, where training would take them for its ranks'."""


class Phases:
    """Runs one command after another and passes SIGTERM and SIGINT on to it."""

    def __init__(self) -> None:
        self.told = False
        """Whether this pod was told to end."""
        self._process: subprocess.Popen[bytes] | None = None

    def listen(self) -> None:
        """From now on; without it the first process of a container does not hear SIGTERM at all."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.told = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """The command's exit code; at once `EXIT_AGAIN` where the pod was told to end before."""
        if self.told:
            return EXIT_AGAIN
        self._process = subprocess.Popen(list(command), env=dict(environment))
        if self.told:  # between the two lines above
            self._process.terminate()
        code = self._process.wait()
        self._process = None
        return code


def node_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this pod among those of the run.

    Raises:
        InputError: it is no number.
    """
    for name in ("NODE_RANK", "JOB_COMPLETION_INDEX", "RANK"):
        if name in environment:
            if not environment[name].isdigit():
                raise InputError(f"{name} is {environment[name]!r}; it must be a whole number")
            return int(environment[name])
    return 0


def run_pod(config: RunConfig, path: str, phases: Phases) -> int:
    """The pod's exit code (docs/kubernetes.md).

    Args:
        path: of the configuration, for the commands.
    """
    launcher, rank = config.launcher, node_rank()
    if nothing_left(read_ending(config.run_dir), config.train.steps):
        print(f"moss: all {config.train.steps} steps are done; nothing is left for this pod", flush=True)
        return 0
    caller = {name: value for name, value in os.environ.items() if name not in _OF_AN_OPERATOR}
    environment = torchrun_environment(config, caller | {"NODE_RANK": str(rank)})
    if launcher.nodes > 1:
        wait_for(environment.get("MASTER_ADDR", ""), phases)
    moss = [environment["PYTHON"], "-m", "moss_train.cli.main"]
    if launcher.preflight.enabled:
        # A pod that comes back to an elastic run is checked alone: the others are training.
        alone = {"NNODES": "1", "NODE_RANK": "0"} if launcher.elastic else {}
        code = phases.run([*moss, "preflight", "--config", path], environment | alone)
        if code:
            return EXIT_AGAIN if phases.told else not_fit(code, config)
    if launcher.cache.folder:
        code = phases.run([*moss, "data", "cache", "--config", path], environment)
        if code and not phases.told:
            print(f"moss: the cache of shards was not filled (exit code {code}); they are read where they are", file=sys.stderr)
    if rank == 0:
        forget_ending(config.run_dir)
    elif launcher.nodes > 1 and (launcher.elastic or launcher.max_restarts):
        # Where nodes come and go, torchrun gives up on a first node that does not answer; it may still be loading its image.
        wait_for(environment["MASTER_ADDR"], phases, int(environment["MASTER_PORT"]))
    stamp = Stamp.of(Path(config.run_dir))
    code = phases.run([*torchrun_command(config), "--config", path], environment)
    return exit_code(code, phases.told, _ending(stamp, code == 0 or phases.told))


def not_fit(code: int, config: RunConfig) -> int:
    """The pod's exit code after a check that did not end well. Faults that are no single node's, such as data that no node can
    read, are bad input: other nodes would have them too."""
    try:
        report = json.loads((job_dir(config.run_dir) / "preflight" / FILE).read_text(encoding="utf-8"))
        return EXIT_BAD_INPUT if code == EXIT_BAD_NODE and report["faults"] and not report["bad"] else code
    except (OSError, ValueError, KeyError, TypeError):
        return code


def _ending(stamp: Stamp, expected: bool) -> Ending | None:
    deadline = time.monotonic() + SECONDS_FOR_THE_ENDING
    while expected and stamp.ending is None and time.monotonic() < deadline:
        time.sleep(0.1)
    return stamp.ending


def wait_for(host: str, phases: Phases, port: int = 0) -> None:
    """Until the name can be looked up, and with a port until somebody answers there.

    Raises:
        InputError: there is no name.
        OSError: none of it in time.
    """
    if not host:
        raise InputError("MASTER_ADDR is not set; it must be the name of the first pod")
    deadline = time.monotonic() + SECONDS_FOR_THE_FIRST
    while not phases.told:
        try:
            socket.getaddrinfo(host, None)
            if port:
                socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                what = f"does not answer on port {port}" if port else "has no address"
                seconds = f"{SECONDS_FOR_THE_FIRST:.0f} s ({error.strerror or error})"
                raise OSError(f"{host}, the first pod, {what} after {seconds}; see why it waits") from None
        time.sleep(1)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pod; one sentence on stderr about what stood in the way."""
    parser = argparse.ArgumentParser(prog="moss_train.launching.kubernetes.pod", description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="the frozen configuration")
    parser.add_argument("--retry-code", type=int, metavar="N", help="end with N where another start is worth it (PyTorchJob)")
    args = parser.parse_args(argv)
    phases = Phases()
    phases.listen()
    try:
        config = load_config(args.config)
        code = run_pod(config, args.config, phases)
        if code == EXIT_AGAIN:
            print(
                f"moss: the run was told to end and has not done all its steps; exit code {code} asks for a new start", flush=True
            )
        return code if args.retry_code is None else retry_code(code, args.retry_code, config, node_rank())
    except InputError as error:
        print(f"moss: error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"moss: error: {error}", file=sys.stderr, flush=True)
        return 1 if args.retry_code is None else args.retry_code


if __name__ == "__main__":
    sys.exit(main())
