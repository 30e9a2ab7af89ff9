"""One of the ranks that measure: `python -m moss_train.bench.scaling.worker JOB`, started by `moss_train.bench.scaling.run`.

What happens is written to the job's lines, one JSON value each: `begin` and `done` by rank 0, `failed` by whichever rank. A rank
that fails ends at once and takes the others with it: they may stand in a collective that it will never enter.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from moss_train import platform
from moss_train.bench.scaling.stacks import SHARE, stack_file

DEVICE_LOST = 3
"""Exit code of a rank that failed and has said so."""
BUILD_SECONDS = 8.0
"""Of a model at 11B widths, and what its first step takes more than the others."""
BESIDE_SECONDS = 4.0
"""Of a case whose model there is: its packs, the profile read."""
SECONDS_TO_TELL = 3.0
"""Before the time is up: where a case stands is written by then."""


def main(argv: list[str] | None = None) -> int:
    """Measure the job's cases one after the other."""
    job = json.loads(Path((argv or sys.argv[1:])[0]).read_text(encoding="utf-8"))
    lines = Path(job["lines"])
    stacks = stack_file(lines, int(os.environ["RANK"])).open("w", encoding="utf-8")
    name = job["cases"][0]["name"]
    platform.install()
    try:
        from moss_train.bench.scaling.cases import Case

        runner = Runner(job)
        for entry in job["cases"]:
            name = entry["name"]
            case = Case.of(entry["case"])
            if not runner.time_left(case):
                break
            faulthandler.dump_traceback_later(seconds_until_stacks(job), file=stacks)
            runner.run(case)
            faulthandler.cancel_dump_traceback_later()
        runner.close()
        runner.end()
    except BaseException as error:
        tell(lines, {"failed": name, "rank": int(os.environ["RANK"]), **reason(error)})
        os._exit(DEVICE_LOST)  # no handler of the process group waits for the others
    return 0


def reason(error: BaseException) -> dict[str, Any]:
    """A sentence, and where it came from unless that is plain."""
    from model.errors import InputError
    from moss_train.bench.train.run import out_of_memory

    first = (str(error).splitlines() or [type(error).__name__])[0].strip()
    if isinstance(error, InputError):
        return {"why": str(error)}
    if out_of_memory(error):
        return {"why": f"out of memory: {first}"}
    return {"why": f"{type(error).__name__}: {first}", "traceback": traceback.format_exc().splitlines()}


def tell(lines: Path, content: dict[str, Any]) -> None:
    """Add one line; short writes to the end of a file do not mix."""
    with lines.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(content) + "\n")


def expected_seconds(job: dict[str, Any], case: Any, pack_seconds: float, has: bool) -> float:
    """What a case will take at the pace of the one before, 0 where there was none.

    Args:
        pack_seconds: of a pack of a step.
        has: the model is there.
    """
    if not pack_seconds:
        return 0.0
    steps: int = (1 if has else job["warmup"]) + job["steps"] + (job["profile"] and case.ranks > 1)
    return steps * sum(map(len, case.frames)) * pack_seconds + (BESIDE_SECONDS if has else BUILD_SECONDS)


def seconds_until_stacks(job: dict[str, Any]) -> float:
    """Behind which a case that is not through is about to be ended, as hung or since the time is up."""
    seconds: float = SHARE * job["case_seconds"]
    if job["ends"] is not None:
        seconds = min(seconds, job["ends"] - SECONDS_TO_TELL - time.time())
    return max(seconds, 0.01)


class Runner:
    """Runs cases on this rank, and keeps a model for those that share it."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        from moss_train.parallel.world import start_world
        from moss_train.planning.flops import gpu_of
        from moss_train.planning.rates import read_table
        from moss_train.platform.device import resolve_device

        self._job, self._lines = job, Path(job["lines"])
        self._device = resolve_device("auto")
        start_world(self._device)
        self._rank = int(os.environ["RANK"])
        self._gpu = gpu_of(torch.cuda.get_device_name(self._device)) if self._device.type == "cuda" else None
        self._row = None if self._gpu is None else read_table().get(self._gpu.name)
        self._subject: Any = None
        self._group: tuple[Any, ...] = ()
        self._pack_seconds = 0.0

    def time_left(self, case: Any) -> bool:
        """Whether a case may begin, by rank 0's clock: at the pace of the one before it would end in time."""
        import torch
        import torch.distributed as dist

        limit, lasts = self._job["until"], expected_seconds(self._job, case, self._pack_seconds, self._has(case))
        flag = torch.tensor([limit is None or time.time() + lasts < limit], dtype=torch.int32, device=self._device)
        dist.broadcast(flag, 0)
        return bool(flag.item())

    def run(self, case: Any) -> None:
        """One case, from the model on."""
        from moss_train.bench.scaling.measure import measure_case, summary

        begin = time.time()
        self._say({"begin": case.name})
        new = not self._has(case)
        subject, job = self._ready(case), self._job
        warmup, profile = job["warmup"] if new else 1, job["profile"] and case.ranks > 1
        ranks = measure_case(case, subject, warmup=warmup, steps=job["steps"], seed=job["seed"], profile=profile)
        if self._rank == 0:
            found = summary(case, ranks, job["seed"], self._gpu, self._row)
            self._pack_seconds = found["step"] / sum(map(len, case.frames))
            self._say({"done": case.name, "case": {**found, "case_seconds": time.time() - begin}})

    def _has(self, case: Any) -> bool:
        """Whether the model of the case before serves."""
        return self._subject is not None and self._group == (case.layout, case.group)

    def _ready(self, case: Any) -> Any:
        from moss_train.bench.subject import Subject

        if self._has(case):
            self._subject.use(case.config)
        else:
            self.close()
            self._subject, self._group = Subject(case.config, self._device), (case.layout, case.group)
        return self._subject

    def close(self) -> None:
        """End what was built."""
        if self._subject is not None:
            self._subject.close()
            self._subject = None

    def end(self) -> None:
        """Leave the world."""
        from moss_train.parallel.world import stop_world

        stop_world()

    def _say(self, content: dict[str, Any]) -> None:
        if self._rank == 0:
            tell(self._lines, content)


if __name__ == "__main__":
    sys.exit(main())
