"""One rank of the check of layouts: the reference on one rank, or a list of layouts that are held against it."""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import dataclasses
import json
import sys
import time
import traceback
import warnings
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
from moss_train.platform.device import resolve_device
from moss_train.verify.layouts.compare import compare
from moss_train.verify.layouts.findings import BF16_REFERENCE, TrialResult
from moss_train.verify.layouts.names import NamedLayout, Trial, parse_layout, trials_of, trials_of_all
from moss_train.verify.layouts.trial import Outcome, run_trial


def exact_matrix_products() -> None:
    """No 19-bit products on GPUs, where they would hide what is compared."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def write_reference(trials: list[Trial], device: torch.device, path: Path, updates: int) -> list[dict[str, Any]]:
    """Runs the trials on one rank and keeps their outcomes; the results are bf16 held against fp32, and trials that failed."""
    layout = start_layout(parse_layout("one").sizes, device, seed=1)
    outcomes, results = {}, []
    for trial in trials:
        try:
            outcomes[trial.key] = run_trial(trial, layout, updates)
        except InputError:
            raise
        except Exception as error:  # kernels fail in many ways; nobody waits for this rank, so the other trials can go on
            result = _result_of(parse_layout("one"), trial)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            said = (str(error) or "?").splitlines()[0]
            result.error = f"on one rank: {type(error).__name__}: {said} ({Path(frame.filename).name}:{frame.lineno})"
            results.append(result.judge().as_json())
            report_progress(results[-1])
    stop_layout()
    partial = path.with_suffix(".tmp")
    torch.save({key: dataclasses.asdict(outcome) for key, outcome in outcomes.items()}, partial)
    partial.replace(path)
    for trial in trials:
        exact = dataclasses.replace(trial, dtype="fp32")
        if trial.dtype == "bf16" and exact in trials and {trial.key, exact.key} <= outcomes.keys():
            findings = compare(outcomes[trial.key], outcomes[exact.key])
            result = TrialResult(BF16_REFERENCE, 1, trial.preset, trial.optimizer, trial.dtype, findings)
            results.append(result.judge().as_json())
            report_progress(results[-1])
    return results


def read_reference(path: Path) -> dict[str, Outcome]:
    """Outcomes by trial on the first rank, which compares; every other rank learns only of which trials there are some."""
    outcomes: dict[str, Outcome] = {}
    if dist.get_rank() == 0:
        outcomes = {key: Outcome(**content) for key, content in torch.load(path, weights_only=True, mmap=True).items()}
    keys = [list(outcomes)]
    dist.broadcast_object_list(keys)
    return outcomes or {key: Outcome() for key in keys[0]}


def time_is_up(end: float | None) -> bool:
    """Whether it is past a moment of `time.time`, by the first rank's clock; the same on every rank."""
    if end is None:
        return False
    past = [time.time() > end]
    dist.broadcast_object_list(past)
    return past[0]


def _leave_out(named: NamedLayout, trials: list[Trial]) -> list[dict[str, Any]]:
    """The results of a layout for which there is no time, reported as such."""
    results = []
    for trial in trials if dist.get_rank() == 0 else ():
        result = _result_of(named, trial)
        result.skipped, result.error = True, "no time was left"
        results.append(result.judge().as_json())
        report_progress(results[-1])
    return results


def _result_of(named: NamedLayout, trial: Trial) -> TrialResult:
    return TrialResult(named.name, named.ranks, trial.preset, trial.optimizer, trial.dtype, modules=trial.modules)


def _run_layout(
    named: NamedLayout, trials: list[Trial], reference: dict[str, Outcome], device: torch.device, updates: int
) -> list[dict[str, Any]]:
    """All trials of a layout; on rank 0 their results, each reported as soon as it is there."""
    results: list[dict[str, Any]] = []
    layout = None
    for trial in trials:
        begin, result = time.monotonic(), _result_of(named, trial)
        try:
            if trial.key not in reference:
                raise InputError("there is nothing on one rank to compare with")
            layout = layout or start_layout(named.sizes, device, seed=1)
            outcome = run_trial(trial, layout, updates)
            if dist.get_rank() == 0:
                result.findings, result.made_of = compare(outcome, reference[trial.key]), outcome.made_of
        except InputError as error:  # found by every rank alike
            result.error = str(error)
        result.seconds = time.monotonic() - begin
        if dist.get_rank() == 0:
            results.append(result.judge().as_json())
            report_progress(results[-1])
    stop_layout()
    return results


def check(request: dict[str, Any]) -> list[dict[str, Any]]:
    """What a request asks for; on rank 0 the results."""
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    device = resolve_device(request["device"])
    if device.type == "cpu":
        torch.set_num_threads(1)
    exact_matrix_products()
    start_world(device)
    reference, bf16, modules = Path(request["reference"]), request["bf16"], request["modules"]
    updates = request["updates"]
    layouts = [parse_layout(name) for name in request["layouts"]]
    if request["write_reference"]:
        results = write_reference(trials_of_all(layouts, request["presets"], bf16, modules), device, reference, updates)
    else:
        expected, results = read_reference(reference), []
        for layout in layouts:
            trials = trials_of(layout, request["presets"], bf16, modules)
            if time_is_up(request["end"]):
                results += _leave_out(layout, trials)
            else:
                results += _run_layout(layout, trials, expected, device, updates)
    dist.barrier()
    stop_world()
    return results


def main(arguments: list[str]) -> int:
    """`RESULT REQUEST`: one rank; the request is a JSON file."""
    request = json.loads(Path(arguments[1]).read_text(encoding="utf-8"))
    return answer(Path(arguments[0]), lambda: check(request))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
