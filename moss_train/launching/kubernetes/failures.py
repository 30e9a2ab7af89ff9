"""Failures of a pod in a row, for a PyTorchJob: its operator makes pods anew without counting them."""

from __future__ import annotations

import json

from moss_train.checkpoint.description import newest_checkpoint, step_of, write_atomically
from moss_train.config.schema import RunConfig
from moss_train.launching.folder import job_dir
from moss_train.launching.kubernetes.codes import EXIT_AGAIN, EXIT_BAD_INPUT


def retry_code(code: int, retry: int, config: RunConfig, rank: int) -> int:
    """The exit code for an operator that makes a pod anew for some codes alone.

    0 and bad input stay; what was told to end becomes `retry`. So does a failure, unless it is one too many: more than
    `launcher.kubernetes.max_restarts` on this node without a newer checkpoint end the job. Their number is kept in
    `RUN/launch/failures_00003.json`.

    Args:
        rank: number of the node.
    """
    if code in (0, EXIT_BAD_INPUT):
        return code
    if code == EXIT_AGAIN:
        return retry
    checkpoint = newest_checkpoint(job_dir(config.run_dir).parent)
    step, path = 0 if checkpoint is None else step_of(checkpoint), job_dir(config.run_dir) / f"failures_{rank:05d}.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        count = int(before["failures"]) + 1 if step <= int(before["step"]) else 1
    except (OSError, ValueError, KeyError, TypeError):
        count = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"step": step, "failures": count}))
    most = config.launcher.kubernetes.max_restarts
    print(f"moss: exit code {code}, failure {count} since step {step}; {most} are borne", flush=True)
    return retry if count <= most else min(code, 127)
