"""One `moss train` under our torchrun, as a process of its own, followed by what it writes into its run folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_train.bench.fleet.processes import MARK, end_all, marked, rank_process
from moss_train.config.compose import save_config
from moss_train.config.schema import RunConfig

_LOOK_SECONDS = 0.02
_SAID = 2500
"""Characters of a run's output that are shown where it went wrong."""


class TimeUp(Exception):
    """There was no time to wait any longer."""


class RunEnded(Exception):
    """A run ended by itself where it should not; with what it said last."""


@dataclass(frozen=True)
class Row:
    """A line of metrics.jsonl."""

    start: int
    """Which start of the run wrote it, from 1."""
    record: dict[str, Any]
    at: float
    """Of `time.monotonic()`, when it was there."""

    @property
    def step(self) -> int:
        return int(self.record["step"])


class Job:
    """A run; use it as a context manager, which leaves no process behind.

    Args:
        config: of the run.
        ranks: started by torchrun.
        restarts: how often it may start them again.
        environment: in addition to this process's.
    """

    def __init__(self, config: RunConfig, ranks: int, *, restarts: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self.run_dir, self.ranks, self.mark = Path(config.run_dir), ranks, uuid.uuid4().hex
        self.run_dir.parent.mkdir(parents=True, exist_ok=True)
        file = self.run_dir.with_name(self.run_dir.name + ".yaml")
        save_config(config, file)
        self.rows: list[Row] = []
        self.events: list[dict[str, Any]] = []
        self.noticed: list[tuple[int, float]] = []
        """For each event the newest step when it was first seen, and when that was (`time.monotonic()`)."""
        options = ["--nproc-per-node", str(ranks), "--max-restarts", str(restarts), "--nnodes", "1", "--standalone"]
        command = [sys.executable, "-m", "moss_train.parallel.agent", *options]
        command += ["-m", "moss_train.cli.main", "train", "--config", str(file)]
        defaults = {"OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
        self._log = self.run_dir.with_name(self.run_dir.name + ".log")
        self.begun = time.monotonic()
        with self._log.open("w") as out:
            self._process = subprocess.Popen(
                command, env=defaults | dict(os.environ) | dict(environment or {}) | {MARK: self.mark}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> list[int]:
        """SIGKILL to whatever is left of it; what could not be ended."""
        left = end_all(self.mark)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        return left

    @property
    def starts(self) -> int:
        """How often the ranks have begun to train."""
        return sum(event["event"] == "started" for event in self.events)

    def poll(self) -> None:
        """Read what is new."""
        events = _lines(self.run_dir / "events.jsonl")
        records = [record for record in _lines(self.run_dir / "metrics.jsonl") if "loss" in record]
        now = time.monotonic()
        if events != _lines(self.run_dir / "events.jsonl"):
            return  # in between; the next look tells which start wrote what
        newest = int(records[-1]["step"]) if records else 0
        self.noticed += [(newest, now)] * (len(events) - len(self.noticed))
        self.events = events
        started = [event for event in events if event["event"] == "started"]
        if not started:
            return
        known = {row.step for row in self.rows if row.start == len(started)}
        self.rows += [
            Row(len(started), record, now)
            for record in records
            if record["step"] not in known and record["step"] > started[-1]["step"]
        ]

    def steps(self, start: int | None = None) -> dict[int, Row]:
        """By step; of the newest start that did it, or of one."""
        return {row.step: row for row in self.rows if start is None or row.start == start}

    def event(self, kind: str) -> int | None:
        """Place of the first of a kind in `events`."""
        return next((place for place, event in enumerate(self.events) if event["event"] == kind), None)

    def started_at(self, start: int) -> float | None:
        """When a start of the ranks began to train."""
        places = [place for place, event in enumerate(self.events) if event["event"] == "started"]
        return self.noticed[places[start - 1]][1] if len(places) >= start else None

    def wait_for(self, true: Callable[[Job], bool], deadline: float, what: str) -> None:
        """Look until something holds.

        Args:
            true: looks at this job.
            deadline: of `time.monotonic()`.
            what: for the sentence that says what there was no time for.

        Raises:
            TimeUp: the deadline came first.
            RunEnded: the run ended first.
        """
        while True:
            ended = self._process.poll()
            self.poll()
            if true(self):
                return
            if ended is not None:
                raise RunEnded(f"the run ended with {ended} before {what}: {self.said()}")
            if time.monotonic() > deadline:
                raise TimeUp(f"no time was left for {what}: {self.said()}")
            time.sleep(_LOOK_SECONDS)

    def kill_rank(self, rank: int) -> float:
        """SIGKILL to one rank; when.

        Raises:
            RunEnded: there is no such process.
        """
        pid = rank_process(self.mark, rank, self._process.pid)
        if pid is None:
            raise RunEnded(f"rank {rank} has no process: {self.said()}")
        now = time.monotonic()
        os.kill(pid, 9)
        return now

    def rank_processes(self) -> set[int]:
        """Ids of the ranks that live."""
        return {pid for rank in range(self.ranks) if (pid := rank_process(self.mark, rank, self._process.pid)) is not None}

    def processes(self) -> list[int]:
        """Ids of all of it that live."""
        return list(marked(self.mark))

    def said(self) -> str:
        """The end of its output."""
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        return " ".join(text[-_SAID:].split())


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a JSONL file."""
    found = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # being written, or cut off by a kill
                found.append(json.loads(line))
    return found
