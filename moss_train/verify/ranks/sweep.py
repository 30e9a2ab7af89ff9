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
            if results and _is_up(request["end"]):  # processes ended: others would only start to find no time
                late = [CaseResult(job.work, "-", ranks, job.kind, skipped="no time was left") for _, job in left]
                _tell_all(late, results, progress)
                break
            left = _start(Path(scratch), request, left, results, progress)
    return results


def _is_up(end: float | None) -> bool:
    return end is not None and time.time() > end


def _tell_all(found: Sequence[CaseResult], results: list[CaseResult], progress: Progress) -> None:
    for result in found:
        results.append(result)
        progress(result)


def _start(
    scratch: Path, request: dict[str, Any], jobs: list[tuple[int, Job]], results: list[CaseResult], progress: Progress
) -> list[tuple[int, Job]]:
    """Does the jobs; those behind one that ended its processes are returned."""
    done: set[int] = set()
    heard = 0

    def fail(job: Job, reason: str) -> None:
        _tell_all([CaseResult(job.work, "?", request["ranks"], job.kind, reasons=[reason])], results, progress)

    def keep(content: dict[str, Any]) -> None:
        nonlocal heard
        if "done" in content:
            done.add(content["done"])
            if heard != content["told"]:
                fail(dict(jobs)[content["done"]], f"{heard} of {content['told']} results arrived; see what else the ranks print")
            heard = 0
            return
        heard += 1
        _tell_all([CaseResult(**content["result"])], results, progress)

    file = scratch / "request.json"
    content = request | {"jobs": [[number, [job.work, job.kind]] for number, job in jobs]}
    file.write_text(json.dumps(content), encoding="utf-8")
    try:
        run_on_ranks(MODULE, request["ranks"], [file], device=request["device"], on_progress=keep)
    except RuntimeError as error:
        position = next((i for i, (number, _) in enumerate(jobs) if number not in done), len(jobs) - 1)
        fail(jobs[position][1], str(error))
        return jobs[position + 1 :]
    for number, job in jobs:
        if number not in done:
            fail(job, "the ranks ended without a word that this was done; see what else they print")
    return []
