"""Scenarios spread over processes of one thread each; results come back in the order of the scenarios."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.policies.policy import CachePolicy
from inference.cache.store import roomy_store
from inference.engine import StepEngine
from inference.evaluation.running.runner import ScenarioRunner
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Scenario, Trace
from inference.model.load import load_model, untrained_model
from model.errors import InputError

RunnerFactory = Callable[[], ScenarioRunner]

_runner: ScenarioRunner | None = None


def make_runner(
    checkpoint: Path,
    folder: Path,
    settings: RunSettings,
    device: str,
    dtype: torch.dtype,
    *,
    untrained: bool = False,
    precision: str = "bf16",
    workers: int = 1,
    strict: bool = False,
) -> ScenarioRunner:
    """Load a checkpoint (or make an untrained model of its dimensions, never in fp8) and its tokenizer.

    `workers` processes do so on the same device.
    """
    model = untrained_model(checkpoint, device, dtype) if untrained else load_model(checkpoint, device, dtype, recipe=precision)
    engine = StepEngine(model, roomy_store(model, CachePolicy(), sharers=workers))
    tokenizer = Tokenizer.from_file(checkpoint)
    rows = engine.model.config.text.vocab_size
    if tokenizer.vocab_size != rows:
        raise InputError(f"{tokenizer.source} has {tokenizer.vocab_size} entries, the checkpoint's head {rows} rows; use its own")
    label = "untrained" if untrained else str(checkpoint)
    return ScenarioRunner(engine, tokenizer, folder, settings, label, strict=strict)


def run_scenarios(
    make: RunnerFactory, scenarios: Sequence[Scenario], *, workers: int = 1, together: int = 16, done: int = 0
) -> Iterator[list[list[Trace]]]:
    """Run scenarios in groups, which are made by their order alone: results do not depend on `workers`.

    Args:
        make: builds a runner; called once in each process, so it must be picklable for more than one worker.
        workers: processes; 1 runs here.
        together: scenarios in one lockstep.
        done: groups that need not be run, the first so many.

    Yields:
        The traces of each scenario of one group after the other.

    Raises:
        InputError: from a runner in any process.
    """
    for name, value in (("workers", workers), ("together", together)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    groups = [scenarios[begin : begin + together] for begin in range(0, len(scenarios), together)][done:]
    if groups:
        yield from _results(make, groups, min(workers, len(groups)))


def _results(make: RunnerFactory, groups: Sequence[Sequence[Scenario]], workers: int) -> Iterator[list[list[Trace]]]:
    if workers == 1:
        runner = make()
        yield from (runner.run(group) for group in groups)
        return
    # Fresh interpreters: a fork would copy the state of torch's threads.
    context = multiprocessing.get_context("spawn")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with context.Pool(workers, initializer=_start_worker, initargs=(make,)) as pool:
        for result in pool.imap(_run_group, groups):
            if isinstance(result, str):
                raise InputError(result)
            yield result


def _start_worker(make: RunnerFactory) -> None:
    global _runner
    torch.set_num_threads(1)
    try:
        _runner = make()
    except InputError as error:
        # A pool restarts workers that die, for ever; the error goes back with the first result instead.
        _failures.append(str(error))


_failures: list[str] = []


def _run_group(group: Sequence[Scenario]) -> list[list[Trace]] | str:
    if _failures:
        return _failures[0]
    assert _runner is not None
    try:
        return _runner.run(group)
    except InputError as error:
        return str(error)
