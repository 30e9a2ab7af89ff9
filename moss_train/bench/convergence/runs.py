"""Runs as processes beside each other on one device, until they are done or the time is up."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from moss_train.bench.convergence.configs import Way, steps_of

GRACE = 15.0
"""Seconds that a process has to end by itself once the time is up, within its step."""
KEEP_SECONDS = 15.0
"""Between two looks at the steps of runs that go on, so that even a kill of all leaves their curves; unless told otherwise."""
_LOOK = 0.2
_TOLD = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
"""Exit codes of a process that was told to end, by us or together with us."""
_WORDS = 4000
"""Last letters of a process' complaints that its result keeps; all of them are in a file beside the results."""


@dataclass
class Run:
    """One seed of one way."""

    way: Way
    seed: int
    steps: int
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    build_seconds: float = 0.0
    seconds: float = 0.0
    """Of the process."""
    trouble: str | None = None
    """Why there is not more; None where all steps were done, or time alone was short."""

    @property
    def name(self) -> str:
        return f"{self.way.name}, seed {self.seed}"

    def read(self, path: Path) -> None:
        """Take in what its process has written so far, in place of what was read before; a line cut off is left out."""
        self.losses, self.norms, self.trouble = [], [], None
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.startswith("# refused: "):
                self.trouble = line.removeprefix("# refused: ").strip()
            elif line.endswith("seconds to build\n"):
                self.build_seconds = float(line.split()[1])
            elif line.endswith("\n") and not line.startswith("#"):
                _, loss, norm = line.split()
                self.losses.append(float(loss))
                self.norms.append(float(norm))


@dataclass
class _Process:
    run: Run
    process: subprocess.Popen[bytes]
    out: Path
    complaints: Path
    log: Path | None
    errors: IO[bytes]
    began: float
    told: bool = False
    """To end, before its steps were done or its time was up."""


def all_runs(ways: Sequence[Way], seeds: int, steps: int | None) -> list[Run]:
    """Seed after seed, so that what is begun before the time is up can be compared."""
    return [Run(way, seed, steps_of(way, steps)) for seed in range(1, seeds + 1) for way in ways]


def run_all(
    runs: Sequence[Run], folder: Path, *, parallel: int, device: str, limit: float | None, more: Sequence[str],
    say: Callable[[str], None], logs: Path | None = None, keep: Callable[[], None] = lambda: None,
    keep_seconds: float = KEEP_SECONDS,
) -> None:  # fmt: skip
    """Fill in the results of all runs; those that the time did not suffice for have none.

    Args:
        runs: what to do.
        folder: for files.
        parallel: processes at once.
        device: auto | cpu | cuda.
        limit: seconds from now, None without one.
        more: overrides of all.
        say: told of the progress.
        logs: begin of the files that keep what failed processes have said, such as `results/fp8`; None keeps none.
        keep: called behind every run, and every `keep_seconds` with the steps so far of those that go on.
        keep_seconds: between two looks at those.

    Raises:
        KeyboardInterrupt: SIGTERM or Ctrl-C, once all processes are ended and what they have written is taken in and kept.
    """
    end = None if limit is None else time.time() + limit
    waiting = list(runs)
    running: list[_Process] = []
    kept = time.time()
    with _noted_signals() as told:
        try:
            while (waiting or running) and not told:
                over = end is not None and time.time() > end
                while waiting and len(running) < parallel and not over:
                    running.append(_start(waiting.pop(0), folder, device, end, more, logs))
                if over:
                    for run in waiting:
                        run.trouble = "the time was up before it began"
                    waiting = []
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    _finish(one, say)
                    keep()
                if time.time() - kept > keep_seconds:
                    for one in running:
                        _look(one)
                    keep()
                    kept = time.time()
                if end is not None and time.time() > end + GRACE:
                    for one in running:
                        one.process.kill()
                time.sleep(_LOOK)
            if told:
                _end(waiting, running, say)
                keep()
                raise KeyboardInterrupt
        finally:
            for one in running:  # nothing goes on behind it, whatever happened
                one.process.kill()
                one.process.wait()


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C that came: noted, so that none interrupts the keeping, as `timeout` sends two."""
    told: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # others cannot
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's job in the background is not told by Ctrl-C
                before[number] = signal.signal(number, lambda which, _: told.append(which))
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _start(
    run: Run, folder: Path, device: str, end: float | None, more: Sequence[str], logs: Path | None
) -> _Process:  # fmt: skip
    stem = f"{run.way.name}_{run.seed}"
    job = {
        "overrides": [*run.way.overrides, f"train.seed={run.seed}", *more], "samples": run.way.samples, "steps": run.steps,
        "rate": run.way.rate, "seed": run.seed, "micro_batches": run.way.micro_batches, "device": device, "deadline": end,
        "out": str(folder / f"{stem}.txt"),
    }  # fmt: skip
    path, complaints = folder / f"{stem}.json", folder / f"{stem}.log"
    path.write_text(json.dumps(job), encoding="utf-8")
    errors = complaints.open("wb")
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    command = [sys.executable, "-m", "moss_train.bench.convergence.worker", str(path)]
    process = subprocess.Popen(command, stdout=errors, stderr=errors, env=variables)
    log = None if logs is None else logs.with_name(f"{logs.name}-{stem}.log")
    return _Process(run, process, folder / f"{stem}.txt", complaints, log, errors, time.time())


def _look(one: _Process) -> None:
    """Take in the steps so far of a run that goes on."""
    run = one.run
    run.seconds = time.time() - one.began
    run.read(one.out)
    run.trouble = run.trouble or f"still running when this was written, after {len(run.losses):,} of {run.steps:,} steps"


def _end(waiting: Sequence[Run], running: list[_Process], say: Callable[[str], None]) -> None:
    """End all processes, keep the steps that they have, and say of each run why there are not more."""
    for run in waiting:
        run.trouble = "told to end before it began"
    for one in running:
        one.process.kill()
    while running:
        one = running.pop()
        one.told = one.process.wait() in _TOLD
        _finish(one, say)


def _finish(one: _Process, say: Callable[[str], None]) -> None:
    one.errors.close()
    run = one.run
    run.seconds = time.time() - one.began
    run.read(one.out)
    if one.told:
        run.trouble = run.trouble or f"told to end after {len(run.losses):,} of {run.steps:,} steps"
    if one.process.returncode != 0 and one.log is not None and not one.told:
        shutil.copyfile(one.complaints, one.log)
    if one.process.returncode != 0 and run.trouble is None:
        words = one.complaints.read_text(encoding="utf-8", errors="replace")[-_WORDS:].strip()
        run.trouble = f"its process ended with {one.process.returncode}: {words}"
    last = f"loss {run.losses[-1]:.4f}" if run.losses else "no step"
    trouble = f"; {run.trouble}" if run.trouble else ""
    say(f"{run.name}: {len(run.losses)} of {run.steps} steps in {run.seconds:.0f} s, {last}{trouble}")
