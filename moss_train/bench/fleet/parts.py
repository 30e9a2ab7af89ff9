"""The parts of a measurement: rates of the whole run; a checkpoint, a killed rank and another layout of the run that is saved."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.bench.fleet.findings import TOLERANCE, checkpoint_cost, rates, same_steps
from moss_train.bench.fleet.job import Job, RunEnded, TimeUp
from moss_train.bench.fleet.machine import Machine, visible
from moss_train.bench.fleet.runs import HALF, OTHER_TENSOR, Chosen, Options, choose
from moss_train.config.schema import RunConfig

PARTS = ("rates", "checkpoint", "kill", "reshard")
_KERNELS = "FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED"
LATER = 3
"""Steps behind the end of a checkpoint before the rank is killed, at least."""
Say = Callable[[str], None]
Part = dict[str, Any]


class Measurement:
    """What the parts have in common.

    Args:
        options: what is asked for.
        machine: where.
        folder: of the runs; theirs alone.
        deadline: of `time.monotonic()`.
        say: told of the progress.
    """

    def __init__(self, options: Options, machine: Machine, folder: Path, deadline: float, say: Say) -> None:
        self.options, self.machine, self.folder, self.deadline, self.say = options, machine, folder, deadline, say
        self.left_over: list[int] = []
        self._jobs: list[Job] = []
        self._beside: Job | None = None
        """The run in another layout, where it was started together with the kill."""

    def end(self) -> None:
        """No process of any run stays."""
        for job in self._jobs:
            self.left_over += job.end()

    def job(self, chosen: Chosen, name: str, *, restarts: int = 0, **values: Any) -> Job:
        """Start a run; `values` are `group__field=value`."""
        config = dataclasses.replace(chosen.config, run_dir=str(self.folder / name))
        for key, value in values.items():
            group, _, field = key.partition("__")
            config = dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{field: value})})
        self.say(f"{name}: {chosen.layout} on {chosen.ranks} ranks; {chosen.why}")
        job = Job(config, chosen.ranks, restarts=restarts, environment=self._environment(chosen.ranks))
        self._jobs.append(job)
        return job

    def _environment(self, ranks: int) -> dict[str, str]:
        found = {"CUDA_VISIBLE_DEVICES": visible(self.machine, ranks)}
        if _KERNELS not in os.environ:  # each start would compile flash-attn-4's kernels anew
            found |= {_KERNELS: "1", "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": str(self.folder / "kernels")}
        return found

    def rates(self, chosen: Chosen) -> Part:
        """Steps of the whole run. Nothing is saved, and no memory is made ready for it."""
        options = self.options
        last = options.warmup + options.steps
        found: Part = {"run": chosen.described()}
        with self.job(chosen, "rates", checkpoint__asynchronous=False) as job:
            found["not_done"] = _sentence(lambda: job.wait_for(lambda j: last in j.steps(), self.deadline, f"{last} steps"))
            self._start_seconds(job, 1, job.begun, found)
            rows = [row for step, row in sorted(job.steps().items()) if step > options.warmup]
            found["all_seconds"] = [row.record["seconds"] for _, row in sorted(job.steps().items())]
            if rows:
                found |= rates(rows, chosen.ranks)
            self.left_over += job.end()
        return _done(found)

    def saved(
        self, chosen: Chosen, kill: bool, keep: Callable[[str, Part], None], beside: Chosen | None = None
    ) -> tuple[Path | None, dict[int, Any]]:  # fmt: skip
        """A run with a checkpoint, and one of its ranks killed behind it.

        Args:
            kill: whether to.
            keep: is given each part when it is known.
            beside: a run in another layout, which starts at the moment of the kill; `reshard` waits for it.

        Returns:
            The checkpoint, and the rows of the steps by number.
        """
        step = self.options.save_step
        with self.job(chosen, "saved", restarts=1, train__save_every=step, checkpoint__keep_last=2) as job:
            part: Part = {"run": chosen.described()}
            part["not_done"] = _sentence(lambda: self._until_saved(job))
            self._start_seconds(job, 1, job.begun, part)
            begun, published = job.event("checkpoint begun"), job.event("checkpoint published")
            folder = job.run_dir / "checkpoints" / str(job.events[published]["checkpoint"]) if published is not None else None
            if begun is not None and published is not None and folder is not None:
                seen = job.noticed[published][0]
                part |= checkpoint_cost(job.steps(1), job.events[begun], job.events[published], seen, self.options.warmup)
                part["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                part["trained_on"] = max(job.steps(1), default=0)
            keep("checkpoint", _done(part))
            if kill and folder is not None:
                keep("kill", self._killed(job, None if beside is None else lambda: self._resharded(beside, folder)))
            self.left_over += job.end()
            return folder, job.steps(1)

    def _until_saved(self, job: Job) -> None:
        """Until the checkpoint stands and some steps have followed: those that are done again, and `LATER` undisturbed ones."""

        def there(job: Job) -> bool:
            published = job.event("checkpoint published")
            if published is None:
                return False
            needed = max(self.options.save_step + self.options.repeated, job.noticed[published][0] + LATER)
            return max(job.steps(), default=0) >= needed

        job.wait_for(there, self.deadline, f"the checkpoint of step {self.options.save_step} and the steps behind it")

    def _killed(self, job: Job, also: Callable[[], Job] | None) -> Part:
        """SIGKILL to the last rank: how long until it and all others are gone, trained again, and with which numbers."""
        rank, before = job.ranks - 1, job.rank_processes()
        found: Part = {"rank": rank, "last_step": max(job.steps(1), default=0)}
        self.say(f"kill: SIGKILL to rank {rank} behind step {found['last_step']}")

        def follow() -> None:
            at = job.kill_rank(rank)
            if also is not None:
                self._beside = also()
            job.wait_for(lambda j: not before & j.rank_processes(), self.deadline, "the end of the other ranks")
            found["ended_seconds"] = time.monotonic() - at
            job.wait_for(lambda j: j.starts > 1, self.deadline, "the second start of the ranks")
            found["trains_again_seconds"] = (job.started_at(2) or at) - at
            job.wait_for(lambda j: bool(j.steps(2)), self.deadline, "the first step behind the kill")
            first = min(job.steps(2).values(), key=lambda row: row.step)
            found.update(first_step=first.step, first_step_seconds=first.at - at)
            wanted = first.step + self.options.repeated - 1
            job.wait_for(lambda j: wanted in j.steps(2), self.deadline, f"step {wanted} once more")

        found["not_done"] = _sentence(follow)
        found |= same_steps(job.steps(1), job.steps(2)) | {"another_run_beside": also is not None}
        return _done(found)

    def _resharded(self, chosen: Chosen, checkpoint: Path) -> Job:
        return self.job(chosen, "resharded", train__resume=str(checkpoint), checkpoint__asynchronous=False)

    def reshard(self, chosen: Chosen, checkpoint: Path, before: dict[int, Any]) -> Part:
        """Another run that goes on from the checkpoint in another layout."""
        found: Part = {"run": chosen.described()}
        first = self.options.save_step + 1
        last = first + self.options.repeated - 1
        with self._beside or self._resharded(chosen, checkpoint) as job:
            found["not_done"] = _sentence(lambda: job.wait_for(lambda j: last in j.steps(), self.deadline, f"step {last}"))
            self._start_seconds(job, 1, job.begun, found)
            found |= same_steps(before, job.steps())
            self.left_over += job.end()
        difference = found["first_loss_difference"]
        found["within_tolerance"] = None if difference is None else difference <= TOLERANCE
        return _done(found | {"tolerance": TOLERANCE})

    def other_layout(self, chosen: Chosen, config: RunConfig) -> Chosen:
        """Half of the GPUs where it fits them; else, or where that is asked for, other sizes of tensor parallelism on all.

        Raises:
            InputError: neither fits.
        """
        sizes = dataclasses.replace(config, parallel=type(config.parallel)())
        if chosen.ranks > 1 and self.options.reshard != OTHER_TENSOR:
            try:
                return choose(sizes, chosen.ranks // 2, self.machine, self.options)
            except InputError as error:
                if self.options.reshard == HALF:
                    raise
                self.say(f"reshard: half of the GPUs is too few ({error})")
        return choose(sizes, chosen.ranks, self.machine, self.options, other_than=chosen.config.parallel)

    def _start_seconds(self, job: Job, start: int, begun: float, found: Part) -> None:
        """From the command to the loop, and to the first and second step's end."""
        started, rows = job.started_at(start), sorted(job.steps(start).values(), key=lambda row: row.step)
        found["start_seconds"] = None if started is None else started - begun
        for name, place in (("first_step_seconds", 0), ("second_step_seconds", 1)):
            found[name] = rows[place].at - begun if len(rows) > place else None


def _sentence(work: Callable[[], None]) -> str | None:
    """Why it was not done; None where it was."""
    try:
        work()
    except (TimeUp, RunEnded) as error:
        return str(error)
    return None


def _done(found: Part) -> Part:
    return {name: value for name, value in found.items() if name != "not_done" or value is not None}
