"""Scenarios spread over processes of one thread each; results come back in the order of the scenarios."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import IMapIterator
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

_PATIENCE = 1.0
"""Seconds after which somebody looks whether the workers live."""

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
    others = multiprocessing.active_children()
    with context.Pool(workers, initializer=_start_worker, initargs=(make,)) as pool:
        processes = [child for child in multiprocessing.active_children() if child not in others]
        results = pool.imap(_run_group, groups)
        for _ in groups:
            result = _next_result(results, processes)
            if isinstance(result, str):
                raise InputError(result)
            yield result


def _next_result(
    results: IMapIterator[list[list[Trace]] | str], processes: Sequence[multiprocessing.process.BaseProcess]
) -> list[list[Trace]] | str:
    """What the pool has next. It replaces a worker that is killed, and waits for what that worker had for ever."""
    while True:
        try:
            return results.next(timeout=_PATIENCE)
        except multiprocessing.TimeoutError:
            if not all(process.is_alive() for process in processes):
                raise InputError(
                    "a worker process died, maybe for want of memory; run the same command again with fewer --workers to go on"
                ) from None


def _start_worker(make: RunnerFactory) -> None:
    global _runner
    torch.set_num_threads(1)
    try:
        _runner = make()
    except Exception as error:
        # A pool restarts workers that die, for ever; the error goes back with the first result instead.
        known = isinstance(error, InputError)
        _failures.append(str(error) if known else f"no worker could begin: {type(error).__name__}: {error}")


_failures: list[str] = []


def _run_group(group: Sequence[Scenario]) -> list[list[Trace]] | str:
    if _failures:
        return _failures[0]
    assert _runner is not None
    try:
        return _runner.run(group)
    except InputError as error:
        return str(error)
