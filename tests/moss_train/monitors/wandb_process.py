"""One process of a run that logs to metrics.jsonl and W&B, as the trainer tells them.

Usage: wandb_process FOLDER MODE FIRST LAST END: steps FIRST + 1 to LAST of 10; END is `end`, `kill` or `kill_all`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from moss_train.config.logging import LoggingConfig
from moss_train.monitors.metrics_file import MetricsFile
from moss_train.monitors.wandb_file import wandb_files
from moss_train.monitors.wandb_log import WandbLog

STEPS = 10


def main(folder: Path, mode: str, first: int, last: int, end: str) -> None:
    """Evaluates before the first step and after the last."""
    settings = LoggingConfig(wandb=mode, wandb_start_seconds=2.0, wandb_tags=["a"], wandb_group="g", wandb_notes="n")
    metrics = MetricsFile(folder / "metrics.jsonl", every=1)
    log = WandbLog(folder / "wandb", settings, "run", {"a": 1}, folder / "metrics.jsonl", every=1)
    monitors = [metrics, log]
    before, begin = len(wandb_files(folder / "wandb")), time.monotonic()
    for monitor in monitors:
        monitor.started(first, STEPS)
    print("STARTED", time.monotonic() - begin, flush=True)
    for step in range(first, last + 1):
        if step > first:
            for monitor in monitors:
                monitor.stepped({"step": step, "loss": 10.0 / step, "grad_norms": {"head": 0.5}})
        if step in (0, STEPS):
            for monitor in monitors:
                monitor.evaluated({"step": step, "eval_loss": 3.0})
    print("LOGGED", time.monotonic() - begin, flush=True)
    if end.startswith("kill"):
        deadline = begin + 60
        while len(wandb_files(folder / "wandb")) == before and time.monotonic() < deadline:
            time.sleep(0.05)  # until W&B has started
        time.sleep(0.5)
        if end == "kill_all":
            assert log.sender is not None
            log.sender.process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
    for monitor in monitors:
        monitor.finished()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
