"""A run that is killed again and again and continued each time at another number of replicas, beside one that is not.

Usage: python -m tests.moss_train.kill_and_resume --steps 200 --kills 20 --out FILE.json

Every kill is a SIGKILL at a random moment behind a random step: to the whole process group, to one rank, or to one loader
process. Each start takes 1, 2 or 4 replicas and any number of loader processes that they allow. The sample keys of every
micro-batch that any of the starts read must be those of the run that was left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moss_train.feed.sample_log import read_sample_log
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import REPOSITORY

READERS = 4
SAVE_EVERY = 4
TARGETS = ("group", "rank", "loader")
LIMIT = 240.0
"""Seconds in which a start must reach its step, or end after a kill."""


class Start:
    """`moss train` in a session of its own.

    Args:
        replicas: ranks.
        processes: loader processes of each; None for one a reader.
    """

    def __init__(self, data: Path, run_dir: Path, steps: int, replicas: int, processes: int | None, save_every: int) -> None:
        self.run_dir, self.replicas, self.processes = run_dir, replicas, processes
        self.lines_before = {path.name: len(_lines(path)) for path in run_dir.glob("samples_*.jsonl")}
        config = run_config(
            data,
            run_dir,
            "pt2",
            steps,
            train__global_batch_size=4,
            train__eval_batches=0,
            train__save_every=save_every,
            data__global_data_workers=READERS,
            data__worker_processes=processes,
            data__log_samples=True,
        )
        self._file = save_run_config(config, run_dir.with_name(run_dir.name + ".yaml"))
        self._begin()

    def _begin(self) -> None:
        command = [sys.executable, "-m", "moss_train.cli.main", "train", "--config", str(self._file)]
        # A file, not a pipe: processes that outlive their parent would keep a pipe open.
        self._messages = self.run_dir.with_name(self.run_dir.name + ".err").open("w+")
        self._process = subprocess.Popen(
            [*command, "--nproc-per-node", str(self.replicas)],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
        )

    def wait_for_step(self, step: int) -> None:
        """Until this start has read the micro-batches of the step, or of a later one."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the run ended by itself with {self._process.returncode}\n{self.messages()}")
            if last_step(self.run_dir, self.lines_before) >= step:
                return
            time.sleep(0.01)
        self.end()
        raise AssertionError(f"step {step} was not reached in {LIMIT:g} s\n{self.messages()}")

    def kill(self, target: str, choice: random.Random) -> None:
        """SIGKILL to `group`, one `rank` or one `loader` process; nothing where the run has ended."""
        if target == "group":
            os.killpg(self._process.pid, signal.SIGKILL)
            return
        ranks = [self._process.pid] if self.replicas == 1 else children(self._process.pid)
        if target == "loader":
            ranks = [pid for rank in ranks for pid in children(rank)]
        if ranks:
            os.kill(choice.choice(sorted(ranks)), signal.SIGKILL)

    def wait(self) -> int:
        """The exit code; the run must end by itself."""
        try:
            return self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"the run did not end within {LIMIT:g} s\n{self.messages()}") from None

    def end(self) -> None:
        """Kill what is left."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def left_over(self, within: float = 20.0) -> list[int]:
        """Processes of the session that are still there."""
        deadline = time.monotonic() + within
        while (pids := [pid for leader in self.leaders() for pid in in_session(leader)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return pids

    def leaders(self) -> list[int]:
        """Processes that lead the sessions of the run."""
        return [self._process.pid]

    def messages(self) -> str:
        """What the run wrote to the standard error stream."""
        self._messages.seek(0)
        return self._messages.read()


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty where there is no such process or it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    return [p for p in _all_processes() if (stat := _stat(p)) and int(stat[1]) == pid]


def in_session(pid: int) -> list[int]:
    """Processes of the session that this one leads."""
    return [p for p in _all_processes() if (stat := _stat(p)) and int(stat[3]) == pid]


def _all_processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def logged(run_dir: Path, skip: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Whole lines of all sample logs.

    Args:
        skip: lines at the beginning of each file to leave out.
    """
    found = []
    for path in sorted(run_dir.glob("samples_*.jsonl")):
        for line in _lines(path)[(skip or {}).get(path.name, 0) :]:
            try:
                found.append(json.loads(line))
            except ValueError:  # cut off by a kill
                continue
    return found


def last_step(run_dir: Path, skip: Mapping[str, int] | None = None) -> int:
    """The newest step of which some replica has read its micro-batches."""
    return max((int(line["step"]) for line in logged(run_dir, skip)), default=0)


def first_difference(run_dir: Path, expected: dict[int, list[list[str]]]) -> str | None:
    """The first micro-batch, in order of steps, that held other samples than expected."""
    for line in sorted(logged(run_dir), key=lambda line: (line["step"], line["micro_batch"])):
        wanted = expected[line["step"]][line["micro_batch"]]
        if line["keys"] != wanted:
            return f"step {line['step']}, micro-batch {line['micro_batch']}: {line['keys']} instead of {wanted}"
    return None


def losses(run_dir: Path) -> dict[int, float]:
    """By step."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def newest(run_dir: Path) -> int:
    """Step of the checkpoint from which the next start continues; 0 without one."""
    latest = run_dir / "latest"
    return int(latest.read_text().strip().removeprefix("step_")) if latest.is_file() else 0


def _processes(choice: random.Random, replicas: int, at_least: int) -> int | None:
    readers = READERS // replicas
    allowed: list[int | None] = [*range(at_least, readers + 1), None]
    return choice.choice(allowed)


def kill_and_resume(
    folder: Path,
    steps: int,
    kills: int,
    seed: int,
    sizes: Sequence[int] = (1, 2, 4),
    targets: Sequence[str] = TARGETS,
    left_alone: Callable[..., Start] = Start,
) -> dict[str, Any]:
    """Both runs; the rows say what was killed where, and what differed.

    Args:
        folder: empty; data and both runs are written there.
        sizes: numbers of replicas to choose among; a start takes another one than the start before.
        targets: what is killed, in turn.
        left_alone: makes the starts that are not killed.
    """
    choice = random.Random(seed)
    write_data(folder)
    whole = left_alone(folder, folder / "whole", steps, 1, 0, save_every=0)
    assert whole.wait() == 0, whole.messages()
    expected = read_sample_log(folder / "whole")
    run_dir, rows, replicas = folder / "killed", [], 0
    stops: list[int | None] = [*sorted(choice.sample(range(1, steps - 5), kills)), None]
    for number, stop in enumerate(stops, start=1):
        replicas = choice.choice([size for size in sizes if size != replicas])
        target = "finish" if stop is None else targets[number % len(targets)]
        processes = _processes(choice, replicas, int(target == "loader"))
        make = left_alone if stop is None else Start
        start = make(folder, run_dir, steps, replicas, processes, save_every=SAVE_EVERY)
        row: dict[str, Any] = {"start": number, "replicas": replicas, "loader_processes": start.processes}
        row["continued_from_step"] = newest(run_dir)
        if stop is not None:
            start.wait_for_step(stop)
            time.sleep(choice.uniform(0, 0.2))
            start.kill(target, choice)
        begin = time.monotonic()
        code = start.wait()
        row |= {"killed": target, "behind_step": stop, "last_step": last_step(run_dir, start.lines_before), "exit_code": code}
        row |= {"seconds_to_end": round(time.monotonic() - begin, 2) if stop is not None else None}
        row |= {"left_over": start.left_over(), "first_difference": first_difference(run_dir, expected)}
        rows.append(row)
        print(json.dumps(row), flush=True)
        if code == 0:
            break
    assert rows[-1]["exit_code"] == 0 and rows[-1]["last_step"] == steps, rows[-1]
    one, two = losses(folder / "whole"), losses(run_dir)
    return {
        "steps": steps,
        "readers": READERS,
        "rows": rows,
        "steps_equal": sum(keys == expected[step] for step, keys in read_sample_log(run_dir).items()),
        "first_losses": [[one[1], two[1]], [one[steps], two[steps]]],
        "largest_relative_loss_difference": max(abs(one[step] - two[step]) / abs(one[step]) for step in one),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the report, as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = kill_and_resume(Path(folder), arguments.steps, arguments.kills, arguments.seed)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    good = report["steps_equal"] == arguments.steps and not any(
        row["first_difference"] or row["left_over"] for row in report["rows"]
    )
    print(f"{report['steps_equal']} of {arguments.steps} steps had the samples of the run that was left alone")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
