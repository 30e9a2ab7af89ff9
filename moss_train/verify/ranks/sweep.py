"""Starts the processes of the checks and collects what they tell. A job that ends them is reported and costs no other."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moss_train.parallel.spawn import run_on_ranks
from moss_train.verify.ranks.findings import CaseResult
from moss_train.verify.ranks.names import Job, jobs_of

MODULE = "moss_train.verify.ranks.process"
Progress = Callable[[CaseResult], None]


def run_checks(
    ranks: int,
    kinds: Sequence[str],
    device: str,
    progress: Progress,
    *,
    golden: Path | None = None,
    seconds: float | None = None,
) -> list[CaseResult]:
    """All checks on so many ranks of this machine.

    Args:
        ranks: a key of `names.CHAINS`.
        kinds: keys of `names.KINDS`.
        device: cpu | cuda, for all ranks.
        progress: called with every result at once.
        golden: folder of recorded quantities; None replays none.
        seconds: what would begin later than this after the start is left out; None for no limit.
    """
    results: list[CaseResult] = []
    with tempfile.TemporaryDirectory(prefix="moss_ranks_check_") as scratch:
        request: dict[str, Any] = {"ranks": ranks, "device": device, "folder": scratch}
        request["golden"] = None if golden is None else str(golden.resolve())
        request["end"] = None if seconds is None else time.time() + seconds
        left = list(enumerate(jobs_of(list(kinds), golden is not None)))
        while left:
            left = _start(Path(scratch), request, left, results, progress)
    return results


def _start(
    scratch: Path, request: dict[str, Any], jobs: list[tuple[int, Job]], results: list[CaseResult], progress: Progress
) -> list[tuple[int, Job]]:
    """Does the jobs; those behind one that ended its processes are returned."""
    done: list[int] = []

    def keep(content: dict[str, Any]) -> None:
        if "done" in content:
            done.append(content["done"])
            return
        results.append(CaseResult(**content["result"]))
        progress(results[-1])

    file = scratch / "request.json"
    content = request | {"jobs": [[number, [job.work, job.kind]] for number, job in jobs]}
    file.write_text(json.dumps(content), encoding="utf-8")
    try:
        run_on_ranks(MODULE, request["ranks"], [file], device=request["device"], on_progress=keep)
        return []
    except RuntimeError as error:
        position = next((i for i, (number, _) in enumerate(jobs) if number not in done), len(jobs) - 1)
        job = jobs[position][1]
        failed = CaseResult(job.work, "?", request["ranks"], job.kind, reasons=[str(error)])
        results.append(failed)
        progress(failed)
        return jobs[position + 1 :]
