"""What a Slurm job does on its first node: `python -m moss_train.launching.slurm_job --config RUN/launch/config.yaml`.

Checks the nodes, fills their caches, trains with one torchrun a node, and decides at the end whether the job is queued again:

    training ended            then
    at its last step          the job ends with 0, and what depends on it starts
    told to end, and saved    queued again (`slurm.requeue`), or left to the array's next element (`slurm.segments`)
    failed, a node to blame   queued again without the node, at most `slurm.max_restarts` times without a new checkpoint
    failed of itself          likewise, on any nodes
    cancelled                 left to Slurm, which queues a job again that it preempts or whose node it has lost
    bad input                 the job ends with 2: it would fail again; with 6 where the check finds what no node is to blame for

It is told to end by Slurm's signal before the time limit, by a preemption, or when a node that it has is being drained. `srun`
passes none of it on in time, so that the steps get SIGTERM by scancel.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from model.errors import InputError
from moss_train.config.compose import load_config
from moss_train.config.schema import RunConfig
from moss_train.guards.ending import TOLD, Ending, forget_ending, read_ending
from moss_train.launching.history import History
from moss_train.launching.nodes import STRIKES, BadNodes, nodes_to_blame, usable_nodes
from moss_train.launching.slurm_commands import Job, address_of, hostnames, leaving
from moss_train.launching.slurm_steps import EXIT_BAD_INPUT, Steps
from moss_train.preflight.report import EXIT_BAD_NODE

EXIT_UNFINISHED = 75
"""The run is not at its end and the job is not queued again: what depends on it must not start."""
EXIT_NOT_SAVED = 5
_POLL_SECONDS = 0.2
_NEAR_LIMIT = "the time limit is near"


@dataclass(frozen=True)
class Place:
    """Where in the queue's life this process is, from Slurm's variables."""

    job: str
    restarts: int
    nodes: tuple[str, ...]
    last_segment: bool

    @classmethod
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> Place:
        """From the environment of a batch script.

        Raises:
            InputError: this is none.
        """
        missing = [name for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST") if not variables.get(name)]
        if missing:
            raise InputError(f"{' and '.join(missing)} not set; this is started by a batch script: use `moss launch slurm`")
        task, last = variables.get("SLURM_ARRAY_TASK_ID"), variables.get("SLURM_ARRAY_TASK_MAX")
        array = variables.get("SLURM_ARRAY_JOB_ID")
        return cls(
            f"{array}_{task}" if array and task else variables["SLURM_JOB_ID"],
            int(variables.get("SLURM_RESTART_COUNT", "0")),
            tuple(hostnames(variables["SLURM_JOB_NODELIST"])),
            task is None or task == last,
        )


class Waiting:
    """Waits for a step, and meanwhile for reasons to end it.

    Args:
        look_seconds: how often the nodes' states are looked at; 0 for never.
        limit_seconds: how long a step may take to end before the time limit; Slurm would end the job for good; 0 for ever.
        sign: a file that changes as soon as training has something to save.
    """

    def __init__(self, job: Job, nodes: Sequence[str], look_seconds: float, limit_seconds: float, sign: Path) -> None:
        self.reason = ""
        """Why the steps were told to end; empty while they were not."""
        self._job, self._nodes, self._look = job, nodes, look_seconds
        self._limit, self._sign, self._since = limit_seconds, sign, 0.0

    def signalled(self, number: int, frame: FrameType | None) -> None:
        """Handler of SIGUSR1 (the time limit is near) and SIGTERM (a preemption, or scancel)."""
        self._end(_NEAR_LIMIT if number == signal.SIGUSR1 else "Slurm ends the job")

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code of `process`, an srun."""
        looked, before = time.monotonic(), self._signed()
        dropped = False
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            if self.reason and not dropped and self._signed() == before:
                dropped = True
                process.terminate()  # tasks that srun has not started yet never get the signal, and there is nothing to save
            if self.reason == _NEAR_LIMIT and self._limit and time.monotonic() - self._since > self._limit:
                print("moss: the step does not end in time; it is given up before the time limit ends the job", flush=True)
                break
            if self._look and not self.reason and time.monotonic() - looked > self._look:
                looked = time.monotonic()
                for node, state in leaving(self._nodes).items():
                    self._end(f"node {node} is {state}")
        code = process.poll()
        if code and not self.reason and self._job.preempted():
            self.reason = "Slurm preempts the job"
        return 1 if code is None else code

    def _signed(self) -> int | None:
        try:
            return self._sign.stat().st_mtime_ns
        except OSError:
            return None

    def _end(self, reason: str) -> None:
        if not self.reason:
            self.reason, self._since = reason, time.monotonic()
            print(f"moss: {reason}: training saves a checkpoint and ends", flush=True)
            self._job.tell_steps("TERM")


def run_job(config: RunConfig, config_path: Path, place: Place) -> int:
    """One start of the job; see the module.

    Returns:
        Its exit code. Where the job was queued again, Slurm ends this process.
    """
    slurm, job = config.launcher.slurm, Job(place.job)
    bad, history = BadNodes(config.run_dir), History(config.run_dir, place.job, place.restarts)
    look, limit = slurm.watch_nodes_seconds if slurm.requeue else 0.0, max(5.0, slurm.signal_seconds - 8.0)
    waiting = Waiting(job, place.nodes, look, limit, Path(config.run_dir) / "metrics.jsonl")
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, waiting.signalled)
    history.write("started", nodes=list(place.nodes))
    steps = Steps(config, config_path, place.job, waiting.wait)
    nodes = [node for node in place.nodes if node not in bad.names()]
    if config.launcher.preflight.enabled and usable_nodes(config, len(nodes)):
        checked = steps.check(nodes, address_of(nodes[0]))
        if waiting.reason:  # what nodes say that were told to end is not held against them
            return _again(config, job, place, history, waiting.reason)
        bad.add(checked.bad, strikes=STRIKES, job=place.job)
        if not checked.bad and checked.faults:
            why = "; ".join(checked.faults)
            if checked.answered:
                return _stop(history, why, EXIT_BAD_NODE)
            return _failed(config, job, place, history, why, EXIT_BAD_NODE)
        nodes = [node for node in nodes if node not in checked.bad]
    if waiting.reason:
        return _again(config, job, place, history, waiting.reason)
    count = usable_nodes(config, len(nodes))
    if not count:
        why = f"{len(nodes)} of the nodes {','.join(place.nodes)} can be used, and the run needs {config.launcher.least_nodes}"
        return _failed(config, job, place, history, why, 1)
    nodes = nodes[:count]
    steps.fill_caches(nodes, address_of(nodes[0]))
    if waiting.reason:
        return _again(config, job, place, history, waiting.reason)
    forget_ending(config.run_dir)
    history.write("training", nodes=nodes)
    begin = history.newest()
    code = steps.train(nodes, address_of(nodes[0]))
    ending = read_ending(config.run_dir)
    if ending is not None and ending.complete:
        history.write("finished", step=ending.step)
        print(f"moss: training is at its end after {ending.step} steps", flush=True)
        return 0
    if waiting.reason == _NEAR_LIMIT and history.newest() == begin:  # the next start would come no further
        why = f"{waiting.reason}, and there is no new checkpoint since the start; raise launcher.slurm.time or signal_seconds"
        return _failed(config, job, place, history, why, EXIT_NOT_SAVED)
    if waiting.reason or (ending is not None and ending.outcome == TOLD):
        return _again(config, job, place, history, waiting.reason or "the ranks were told to end")
    return _blame(config, job, place, history, ending, code, nodes)


def _blame(
    config: RunConfig, job: Job, place: Place, history: History, ending: Ending | None, code: int, nodes: Sequence[str]
) -> int:
    """Training failed: who is to blame, and what follows."""
    if (code if ending is None else ending.code) == EXIT_BAD_INPUT:
        return _stop(history, "bad input; see the output" if ending is None else ending.sentence, EXIT_BAD_INPUT)
    why = ending.sentence if ending is not None and ending.sentence else f"training ended with exit code {code}"
    code = ending.code if ending is not None else code
    if ending is not None:
        in_order = not (config.launcher.elastic or config.launcher.max_restarts)
        for node, strikes in nodes_to_blame(ending, nodes, config.launcher.nproc_per_node, in_order).items():
            BadNodes(config.run_dir).add({node: why}, strikes=strikes, job=place.job)
    return _failed(config, job, place, history, why, code)


def _stop(history: History, why: str, code: int) -> int:
    """What would fail again on any nodes."""
    history.write("failed", why=why, code=code)
    print(f"moss: error: {why}", file=sys.stderr, flush=True)
    return code


def _failed(config: RunConfig, job: Job, place: Place, history: History, why: str, code: int) -> int:
    """Queue the job again, or leave the rest to the array's next element, if it may fail once more."""
    failures = history.failures_without_progress() + 1
    history.write("failed", why=why, code=code)
    slurm = config.launcher.slurm
    goes_on = slurm.requeue or not place.last_segment
    if not goes_on or failures > slurm.max_restarts:
        more = f" for the {failures}. time without a new checkpoint (launcher.slurm.max_restarts)" if goes_on else ""
        print(f"moss: error: training failed{more}: {why}", file=sys.stderr, flush=True)
        return code or 1
    return _again(config, job, place, history, f"training failed: {why}")


def _again(config: RunConfig, job: Job, place: Place, history: History, why: str) -> int:
    """Not at its end: queue the job again, or leave the rest to the next element of the array."""
    slurm = config.launcher.slurm
    if not job.runs():
        history.write("ended by Slurm", why=why)
        print(f"moss: {why}; Slurm decides whether the job is queued again (not where it was cancelled)", flush=True)
        return EXIT_UNFINISHED
    if slurm.requeue:
        exclude = BadNodes(config.run_dir).names()
        history.write("queued again", why=why, exclude=exclude)
        print(f"moss: {why}; queued again{' without ' + ','.join(exclude) if exclude else ''}", flush=True)
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # Slurm ends this process now; the nodes are excluded first
        both = [*filter(None, slurm.exclude.split(",")), *exclude] if exclude else []
        if job.requeue(both):
            return 0
        return EXIT_UNFINISHED
    history.write("stopped", why=why)
    if not place.last_segment:
        print(f"moss: {why}; the array's next element goes on", flush=True)
        return 0
    print(f"moss: error: {why}; the run is not at its end: submit it again to go on", file=sys.stderr, flush=True)
    return EXIT_UNFINISHED


def main(arguments: Sequence[str] | None = None, run: Callable[[RunConfig, Path, Place], int] = run_job) -> int:
    """Run the job that this process belongs to."""
    parser = argparse.ArgumentParser(prog="moss_train.launching.slurm_job", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", required=True, help="the frozen configuration, RUN/launch/config.yaml")
    path = Path(parser.parse_args(arguments).config).resolve()
    try:
        return run(load_config(path), path, Place.of_environment())
    except InputError as error:
        print(f"moss: error: {error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
