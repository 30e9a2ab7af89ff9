"""One start of a run in processes of its own, and what is sent to them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from moss_train.config.schema import RunConfig
from tests.moss_train.kill_and_resume import children, in_session
from tests.moss_train.kills.injected import MODULE
from tests.moss_train.runs import save_run_config
from tests.ranks import REPOSITORY

LIMIT = 120.0
"""Seconds in which a start must come to an end by itself."""


class Start:
    """`moss train`, with the real launcher where there are several ranks.

    Args:
        plan: what a rank does to itself, see `injected`; None for nothing.
    """

    def __init__(self, config: RunConfig, ranks: int, plan: dict[str, Any] | None = None) -> None:
        self.run_dir, self.ranks = Path(config.run_dir), ranks
        file = save_run_config(config, self.run_dir.with_name(self.run_dir.name + ".yaml"))
        command = [sys.executable, "-m", MODULE, "train", "--config", str(file), "--nproc-per-node", str(ranks)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({} if plan is None else {"MOSS_KILL": json.dumps(plan)})
        self._messages = self.run_dir.with_name(self.run_dir.name + ".err").open("w+")
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            start_new_session=True,
            stdout=self._messages,
            stderr=subprocess.STDOUT,
        )

    def wait_for_step(self, step: int) -> bool:
        """Until the metrics have the step's line; False where the run ended before."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if last_step(self.run_dir) >= step:
                return True
            if self._process.poll() is not None:
                return False
            time.sleep(0.01)
        self.end()
        raise AssertionError(f"step {step} was not reached in {LIMIT:g} s\n{self.messages()}")

    def send(self, target: str, choice: random.Random) -> None:
        """SIGKILL to the whole `group` or a `loader` process; SIGTERM to the `launcher` alone, SIGINT to all, as Ctrl-C does."""
        if self._process.poll() is not None:
            return
        if target == "group":
            os.killpg(self._process.pid, signal.SIGKILL)
        elif target == "SIGTERM":
            os.kill(self._process.pid, signal.SIGTERM)
        elif target == "SIGINT":
            os.killpg(self._process.pid, signal.SIGINT)
        elif target == "loader":
            ranks = [self._process.pid] if self.ranks == 1 else children(self._process.pid)
            loaders = sorted(pid for rank in ranks for pid in children(rank))
            if loaders:
                os.kill(choice.choice(loaders), signal.SIGKILL)
        else:
            raise ValueError(target)

    def wait(self) -> int:
        """The exit code; the run must end by itself."""
        try:
            return self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"the run did not end within {LIMIT:g} s\n{self.messages()}") from None

    def end(self) -> None:
        """Kill what is left."""
        for pid in [self._process.pid, *in_session(self._process.pid)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def left_over(self, within: float = 10.0) -> int:
        """Processes of the session that are still there after some seconds; they are ended then."""
        deadline = time.monotonic() + within
        while (pids := [pid for leader in self.leaders() for pid in in_session(leader)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    def leaders(self) -> list[int]:
        """Processes that lead the sessions of the run."""
        return [self._process.pid]

    def messages(self) -> str:
        """What the run wrote to both its streams."""
        self._messages.seek(0)
        return self._messages.read()

    def said(self) -> str:
        """The first sentence that names a cause, else the end of a traceback."""
        lines = [line for line in self.messages().splitlines() if line.strip()]
        own = [line for line in lines if line.startswith("moss") and "warning" not in line]
        return own[0] if own else lines[-1][:200] if lines else ""


def last_step(run_dir: Path) -> int:
    """The newest update of which the metrics tell."""
    return max((row["step"] for row in metrics(run_dir) if "loss" in row), default=0)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    path, found = run_dir / "metrics.jsonl", []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:  # cut off by a kill
            continue
    return found
