"""`RUN/launch/history.jsonl`: what became of a launched run, a line for each start, end and requeueing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from moss_train.checkpoint.description import newest_checkpoint, step_of
from moss_train.launching.folder import job_dir

FILE = "history.jsonl"


class History:
    """Appends lines with time, job and start number, and the step of the newest checkpoint.

    Args:
        job: its number.
        start: how often Slurm has started it before.
    """

    def __init__(self, run_dir: str | Path, job: str, start: int) -> None:
        self._run_dir, self._job, self._start = Path(run_dir), job, start

    @property
    def path(self) -> Path:
        return job_dir(self._run_dir) / FILE

    def write(self, event: str, **more: Any) -> None:
        """Append a line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        entry = {"time": when, "job": self._job, "start": self._start, "event": event, "checkpoint": self.newest()} | more
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def failures_without_progress(self) -> int:
        """How often training has failed in this job, or this array, since there has been a newer checkpoint."""
        count, newest = 0, self.newest()
        for entry in reversed(self._entries()):
            if entry.get("event") == "failed" and str(entry.get("job")).split("_")[0] == self._job.split("_")[0]:
                if entry.get("checkpoint") != newest:
                    break
                count += 1
        return count

    def newest(self) -> int | None:
        """Step of the newest checkpoint."""
        folder = newest_checkpoint(self._run_dir)
        return None if folder is None else step_of(folder)

    def _entries(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]
