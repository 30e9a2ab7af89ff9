"""One rank of the checks: does the jobs of a request one after the other, those for a single rank on the first rank alone."""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from model.errors import InputError
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.spawn import answer, report_progress
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.deterministic import set_deterministic
from moss_train.platform.device import resolve_device
from moss_train.verify.layouts.names import parse_layout
from moss_train.verify.layouts.ranks import exact_matrix_products, time_is_up
from moss_train.verify.ranks import golden
from moss_train.verify.ranks.findings import CaseResult
from moss_train.verify.ranks.guards import Guards
from moss_train.verify.ranks.kernels import kernels
from moss_train.verify.ranks.names import CHAINS, GOLDEN, KINDS, Job, Kind
from moss_train.verify.ranks.resume import Saved, chain, reshard
from moss_train.verify.ranks.training import clear

_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class _Process:
    """This rank, and what it was asked for."""

    def __init__(self, request: dict[str, Any], device: torch.device) -> None:
        self._device, self._folder = device, Path(request["folder"])
        self._golden = None if request["golden"] is None else Path(request["golden"])
        self._end: float | None = request["end"]
        self._ranks: int = request["ranks"]
        self._told = 0

    def do(self, job: Job, number: int) -> None:
        """One job; its results are told as they come, and that it ended with so many."""
        self._told = 0
        if self._up():
            self._leave_out(job.work, "-", job.kind)
        else:
            self._do(job)
        if dist.get_rank() == 0:
            report_progress({"done": number, "told": self._told})

    def _do(self, job: Job) -> None:
        kind = KINDS.get(job.kind, KINDS["torch"])
        names = list(CHAINS[self._ranks])
        if job.work == "chain":
            folder, file = self._folder / kind.modules, self._saved(kind)
            chain(kind, names, self._device, folder, self._tell, lambda saved: saved.write(file), self._up)
        elif job.work == "guards":
            self._guards(kind, names[:2])
        elif job.work == "alone":
            self._alone(kind)
        elif self._golden is not None:
            for name in self._while_time("golden", GOLDEN[self._ranks] if job.work == "golden" else ("one",)):
                golden.replay(name, self._golden, self._device, self._tell)

    def _guards(self, kind: Kind, names: list[str]) -> None:
        for name in self._while_time("guards", names, kind.modules):
            layout = start_layout(parse_layout(name).sizes, self._device, seed=1)
            Guards(kind, name, layout, self._folder / f"guards_{kind.modules}_{name}", self._tell).run()
            stop_layout()
            clear()

    def _alone(self, kind: Kind) -> None:
        file, name = self._saved(kind), "one"
        layout = start_layout(parse_layout(name).sizes, self._device, seed=1)
        kernels(kind, name, layout, self._tell)
        if file.is_file():
            reshard(kind, name, layout, Saved.read(file), self._tell)
        else:
            self._tell(CaseResult("reshard", name, 1, kind.modules, kind.dtype, skipped="no run of several ranks was saved"))
        stop_layout()
        clear()

    def _saved(self, kind: Kind) -> Path:
        return self._folder / f"last_{kind.modules}.pt"

    def _while_time(self, work: str, names: Sequence[str], modules: str = "") -> Iterator[str]:
        """Layouts that may be begun; the others are told as left out."""
        for name in names:
            if self._up():
                self._leave_out(work, name, modules)
            else:
                yield name

    def _leave_out(self, work: str, name: str, modules: str) -> None:
        self._tell(CaseResult(work, name, dist.get_world_size(), modules, skipped="no time was left"))

    def _up(self) -> bool:
        return time_is_up(self._end)

    def _tell(self, result: CaseResult) -> None:
        self._told += 1
        if dist.get_rank() == 0:
            report_progress({"result": result.as_json()})


@contextmanager
def _without_launcher() -> Iterator[None]:
    """The process as if it had been started alone, with the GPU that it has."""
    taken = {name: os.environ.pop(name) for name in _LAUNCHER if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def check(request: dict[str, Any]) -> bool:
    """All jobs of a request; True."""
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    device = resolve_device(request["device"])
    if device.type == "cpu":
        torch.set_num_threads(1)
    set_deterministic(True)
    exact_matrix_products()
    jobs = [(number, Job(*words)) for number, words in request["jobs"]]
    alone = [pair for pair in jobs if pair[1].work.endswith("alone")]
    process = _Process(request, device)
    first = os.environ.get("RANK", "0") == "0"
    together = [pair for pair in jobs if pair not in alone]
    if together:
        _in_world(device, lambda: _do_all(process, together))
    if alone and first:
        with _without_launcher():
            _in_world(device, lambda: _do_all(process, alone))
    return True


def _do_all(process: _Process, jobs: list[tuple[int, Job]]) -> None:
    for number, job in jobs:
        process.do(job, number)
    dist.barrier()


def _in_world(device: torch.device, work: Callable[[], None]) -> None:
    """Work between the start and the end of a process group."""
    start_world(device)
    try:
        work()
    except InputError as error:  # of the sizes, found by every rank alike
        raise RuntimeError(str(error)) from error
    stop_world()


def main(arguments: list[str]) -> int:
    """`RESULT REQUEST`: one rank; the request is a JSON file."""
    request = json.loads(Path(arguments[1]).read_text(encoding="utf-8"))
    return answer(Path(arguments[0]), lambda: check(request))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
