"""Starts the ranks for the cases of each number of GPUs, and goes on without a case that fails, hangs or does not fit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moss_train.bench.scaling.cases import Case, Options
from moss_train.bench.scaling.predict import planned_bytes
from moss_train.bench.scaling.stacks import standing
from moss_train.frames.settings import GIB

Keep = Callable[[dict[str, Any]], None]
Say = Callable[[str], None]
POLL = 0.1
TIME_UP = "the time of --limit-seconds was up"
START_SECONDS = 30.0
"""Of ranks until they begin a case, and that they have beside a case's own time: libraries, the first connections."""
START_SHARE = (60.0, 30.0)
"""Of the time, for the start of ranks: of the first ones, which compile the kernels of a step, and of later ones."""
END_SECONDS = 5.0


class Scaling:
    """Runs cases, each number of GPUs in ranks of its own.

    Args:
        options: what is asked for.
        device: cuda | cpu; cpu hides all GPUs.
        keep: is given the results so far behind every case.
        say: told of the progress.
        card: bytes of a GPU: what does not fit by the plan is left out; None leaves nothing out.
    """

    def __init__(self, options: Options, device: str, keep: Keep, say: Say, *, card: int | None = None) -> None:
        self._card = card
        self._options, self._device, self._keep, self._say = options, device, keep, say
        limit = options.limit_seconds
        self._until = None if limit is None else time.time() + max(limit - 2 * END_SECONDS, 0.0)
        self.results: dict[str, Any] = {"cases": [], "left_out": []}

    def run(self, cases: Sequence[Case], left_out: Sequence[dict[str, str]]) -> dict[str, Any]:
        """All cases; a number of GPUs has as much of the time as its start takes, and of the rest its cases' part.

        Returns:
            `cases` and `left_out`; a case that failed has `failed`, a sentence, in place of numbers.
        """
        self.results["left_out"] += left_out
        cases = self._fitting(cases)
        self._keep(self.results)
        numbers = sorted({case.ranks for case in cases})
        for number in numbers:
            mine = [case for case in cases if case.ranks == number]
            later = [case for case in cases if case.ranks > number]
            starts = [START_SHARE[number != numbers[0]], *(START_SHARE[1] for _ in {case.ranks for case in later})]
            self._of_ranks(mine, number, self._share(len(mine), len(later), starts))
        return self.results

    def _fitting(self, cases: Sequence[Case]) -> list[Case]:
        if self._card is None:
            return list(cases)
        fitting = []
        for case in cases:
            needed = planned_bytes(case, self._options.seed)
            if needed > self._card:
                reason = f"it takes {needed / GIB:.1f} GiB by the plan, and a GPU has {self._card / GIB:.1f}; give fewer layers"
                self.results["left_out"].append({"name": case.name, "reason": reason})
            else:
                fitting.append(case)
        return fitting

    def _share(self, mine: int, later: int, starts: Sequence[float]) -> float | None:
        """Until when, in seconds of `time.time()`, these cases may take: their start, and a share of what all starts leave."""
        if self._until is None or not later:
            return self._until
        left = self._until - time.time()
        return time.time() + starts[0] + max(0.0, left - sum(starts)) * mine / (mine + later)

    def _of_ranks(self, cases: Sequence[Case], ranks: int, until: float | None) -> None:
        waiting = list(cases)
        while waiting and (until is None or time.time() < until):
            self._say(f"{ranks} rank{'s' * (ranks > 1)}: {len(waiting)} cases")
            done, again = self._session(waiting, ranks, until)
            waiting = [case for case in waiting if case.name not in done]
            if not again:
                break
        self.results["left_out"] += [{"name": case.name, "reason": TIME_UP} for case in waiting]
        self._keep(self.results)

    def _session(self, cases: Sequence[Case], ranks: int, until: float | None) -> tuple[set[str], bool]:
        """Ranks that measure until one fails, hangs, or all is done.

        Returns:
            Names of the cases that are settled, and whether others may be tried in new ranks.
        """
        options = self._options
        with tempfile.TemporaryDirectory(prefix="moss-scaling-") as folder:
            job, lines = Path(folder) / "job.json", Path(folder) / "lines"
            lines.touch()
            job.write_text(json.dumps({
                "lines": str(lines), "until": until, "ends": self._until, "case_seconds": options.case_seconds,
                "warmup": options.warmup, "steps": options.steps, "seed": options.seed, "profile": options.profile,
                "cases": [{"name": case.name, "case": case.to_dict()} for case in cases],
            }), encoding="utf-8")  # fmt: skip
            command = [sys.executable, "-m", "moss_train.parallel.local_ranks", str(ranks), "moss_train.bench.scaling.worker"]
            environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ""} if self._device == "cpu" else {})
            with (Path(folder) / "output").open("w+", encoding="utf-8", errors="replace") as output:
                process = subprocess.Popen(
                    [*command, str(job)], env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
                try:
                    return self._watch(process, lines, cases, output)
                finally:
                    _end(process)

    def _watch(
        self, process: subprocess.Popen[bytes], lines: Path, cases: Sequence[Case], output: Any
    ) -> tuple[set[str], bool]:  # fmt: skip
        """Reads the lines as they come."""
        settled: set[str] = set()
        running, moved, at = "", time.time(), 0
        while True:
            ended = process.poll() is not None
            for content in (news := _lines(lines, at)):
                moved = time.time()
                if "begin" in content:
                    running = str(content["begin"])
                elif "done" in content:
                    self._add(content["case"])
                    self._say(f"{content['done']}: {content['case']['step']:.3f} s")
                    settled.add(str(content["done"]))
                    running = ""
                elif content["failed"] not in settled:  # of several ranks the first, which is the cause
                    self._fail(content["failed"], cases, f"rank {content['rank']}: {content['why']}", content.get("traceback"))
                    settled.add(str(content["failed"]))
            at += len(news)
            if ended:
                break
            name = running or next((case.name for case in cases if case.name not in settled), "")
            if time.time() - moved > self._options.case_seconds + START_SECONDS * (not running):
                if name:
                    stood = standing(lines, cases[0].ranks)
                    self._fail(name, cases, f"no answer in {time.time() - moved:.0f} s; its ranks were ended", stood or None)
                else:
                    self._say("all cases are measured, but the ranks do not end; they were ended")
                return settled | {name}, bool(name)
            if self._until is not None and time.time() > self._until:
                if not running:
                    return settled, False
                self._cut(running, time.time() - moved, standing(lines, cases[0].ranks))
                return settled | {running}, False
            time.sleep(POLL)
        if process.returncode and not any("failed" in content for content in _lines(lines, 0)):
            output.seek(0)
            told = output.read().splitlines()[-20:]
            name = running or next((case.name for case in cases if case.name not in settled), "")
            if not name:
                self._say(
                    f"all cases are measured, then the ranks ended with exit code {process.returncode}: {' '.join(told[-1:])}"
                )
                return settled, False
            self._fail(name, cases, f"the ranks ended with exit code {process.returncode}", told)
            settled.add(name)
        return settled, process.returncode != 0

    def _add(self, case: dict[str, Any]) -> None:
        self.results["cases"].append(case)
        self._keep(self.results)

    def _cut(self, name: str, seconds: float, stood: list[str]) -> None:
        why = f"{TIME_UP} {seconds:.0f} s after its start"
        self._say(f"{name}: {why}")
        self.results["left_out"].append({"name": name, "reason": why, **({"traceback": stood} if stood else {})})

    def _fail(self, name: str, cases: Sequence[Case], why: str, traceback: list[str] | None = None) -> None:
        case = next(case for case in cases if case.name == name)
        told = {} if traceback is None else {"traceback": traceback}
        self._say(f"{name}: {why}")
        self._add({
            "name": name, "kind": case.kind, "layout": case.layout, "ranks": case.ranks, "overrides": [*case.group, *case.sizes],
            "failed": why, **told,
        })  # fmt: skip


def _lines(path: Path, skip: int) -> list[dict[str, Any]]:
    """Whole lines behind the first ones."""
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [json.loads(line) for line in whole[skip:]]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the ranks to end, then end them: one may stand in a collective for ever."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None or number == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
