"""One evaluation from files to files: run, score, and set the scores beside those of no training at all."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from inference.evaluation.baselines import BASELINES, run_baseline
from inference.evaluation.folder import Provenance, write_folder
from inference.evaluation.judge.judge import Judge
from inference.evaluation.latency.profile import load_profile
from inference.evaluation.parallel import make_runner, run_scenarios
from inference.evaluation.resume import PartialTraces, checkpoint_identity, run_key
from inference.evaluation.running.frames import check_media
from inference.evaluation.running.settings import RunSettings, modes_of
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.storage import check_folder, load_scenario_files
from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What to evaluate and where the results go."""

    scenarios: Path | Sequence[Path]
    """One file or several; their scenarios are run and scored as one set, each with its videos relative to its own file."""
    checkpoint: Path
    out: Path
    settings: RunSettings = field(default_factory=RunSettings)
    workers: int = 1
    together: int = 16
    """Scenarios that one pass of the model serves."""
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    precision: str = "bf16"
    """Recipe of the decoder's weights, see `inference.quantize`."""
    limit: int | None = None
    """Only the first so many scenarios of each file."""
    untrained_baseline: bool = False
    """Also run the checkpoint's own architecture with untrained weights, into `out/untrained`."""
    strict: bool = False
    """End at the first scenario that cannot be run."""
    judge: Judge | None = None
    """Of free answers; None: what needs one is not scored."""
    command: Sequence[str] = ()
    """Words of the command line, for the record."""

    @property
    def files(self) -> list[Path]:
        """The scenario files."""
        return [self.scenarios] if isinstance(self.scenarios, Path) else list(self.scenarios)


@dataclass(frozen=True)
class Evaluated:
    """What came of an evaluation."""

    scores: dict[str, dict[str, Any]]
    """By model: `checkpoint`, `untrained` where asked for, and each of `BASELINES`."""
    failed: dict[str, str]
    """Why, by the id of each scenario that could not be run to its end with the checkpoint."""


def evaluate(request: EvaluationRequest, on_done: Callable[[str, int, int], None] | None = None) -> Evaluated:
    """Run and score.

    Writes `traces.jsonl`, `items.jsonl`, `scores.json` and `run.json` into the output folder, and the same for each baseline into
    a folder of its name inside it. An evaluation that was stopped goes on with the first group of scenarios that was not
    finished, as long as nothing that decides its results has changed.

    Args:
        on_done: called with (model name, finished scenarios, all scenarios).

    Raises:
        InputError: a bad request or file; with `strict`, what went wrong in a scenario.
    """
    if request.settings.clock == "wall" and request.workers > 1:
        raise InputError(f"clock wall and {request.workers} workers: they would take each other's time; leave out --workers")
    scenarios = load_scenario_files(request.files, request.limit)
    check_folder(request.out)
    if not any(modes_of(scenario, request.settings) for scenario in scenarios):
        files, modes = ", ".join(map(str, request.files)), ", ".join(request.settings.modes)
        raise InputError(f"no scenario of {files} has anything for the modes {modes}; name others, or none")
    for scenario in scenarios:  # a path that leads nowhere is a slip to be mended, before hours of work
        check_media(scenario, request.files[0].parent)
    scores: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    partials: list[PartialTraces] = []
    for name in ("checkpoint", *(["untrained"] if request.untrained_baseline else [])):
        folder = request.out if name == "checkpoint" else request.out / name
        begin = time.monotonic()
        partial, traces = _run_model(request, name, folder, scenarios, on_done)
        record = Provenance(
            command=request.command,
            checkpoint={"path": str(request.checkpoint), **({"untrained": True} if name == "untrained" else {})},
            settings=_settings(request),
            files=request.files,
            seconds=time.monotonic() - begin,
        )
        scores[name] = write_folder(folder, traces, scenarios, record, request.judge)
        partials.append(partial)
        if name == "checkpoint":
            failed = {trace.scenario_id: trace.error for trace in traces if trace.error}
    for name in BASELINES:
        record = Provenance(command=request.command, checkpoint={"baseline": name}, files=request.files)
        scores[name] = write_folder(request.out / name, run_baseline(name, scenarios), scenarios, record, None)
    for partial in partials:  # not before: who is stopped at a later model need not run the first again
        partial.finish()
    return Evaluated(scores, failed)


def _run_model(
    request: EvaluationRequest,
    name: str,
    folder: Path,
    scenarios: Sequence[Scenario],
    on_done: Callable[[str, int, int], None] | None,
) -> tuple[PartialTraces, list[Trace]]:
    make = functools.partial(
        make_runner,
        request.checkpoint,
        request.files[0].parent,
        request.settings,
        request.device,
        request.dtype,
        untrained=name == "untrained",
        precision=request.precision,
        workers=request.workers,
        strict=request.strict,
    )
    partial = PartialTraces(folder, run_key(scenarios, request.files[0].parent, _identity(request, name)))

    def report() -> None:
        if on_done is not None:
            on_done(name, sum(map(len, partial.groups)), len(scenarios))

    report()
    done = len(partial.groups)
    for group in run_scenarios(make, scenarios, workers=request.workers, together=request.together, done=done):
        partial.add(group)
        report()
    return partial, [trace for group in partial.groups for traces in group for trace in traces]


def _settings(request: EvaluationRequest) -> dict[str, Any]:
    """How the model is run."""
    values = dataclasses.asdict(request.settings)
    how = {"together": request.together, "device": request.device, "dtype": str(request.dtype), "precision": request.precision}
    return values | how | {"limit": request.limit}


def _identity(request: EvaluationRequest, name: str) -> dict[str, Any]:
    """All that decides the traces of a model, beside scenarios and videos."""
    profile = request.settings.latency_profile
    return {
        "name": name,
        "checkpoint": checkpoint_identity(request.checkpoint),
        "profile": None if profile is None else dataclasses.asdict(load_profile(profile)),
        "strict": request.strict,
        **_settings(request),
    }
