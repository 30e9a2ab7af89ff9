"""One evaluation from files to files: run, score, and set the scores beside those of no training at all."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from inference.evaluation.baselines import BASELINES, run_baseline
from inference.evaluation.parallel import make_runner, run_scenarios
from inference.evaluation.runner import RunSettings
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.summary import score
from inference.evaluation.storage import check_folder, load_scenario_files, save_traces, write_lines


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


def evaluate(request: EvaluationRequest, on_done: Callable[[str, int, int], None] | None = None) -> dict[str, dict[str, Any]]:
    """Run and score.

    Writes `traces.jsonl` and `scores.json` into the output folder, and both for each baseline into a folder of its
    name inside it.

    Args:
        on_done: called with (model name, finished scenarios, all scenarios).

    Returns:
        Scores by model: `checkpoint`, `untrained` where asked for, and each of `BASELINES`.
    """
    files = [request.scenarios] if isinstance(request.scenarios, Path) else list(request.scenarios)
    scenarios = load_scenario_files(files, request.limit)
    check_folder(request.out)
    names = ["checkpoint", *(["untrained"] if request.untrained_baseline else [])]
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        make = functools.partial(
            make_runner,
            request.checkpoint,
            files[0].parent,
            request.settings,
            request.device,
            request.dtype,
            untrained=name == "untrained",
            precision=request.precision,
            workers=request.workers,
        )
        report = None if on_done is None else functools.partial(_report, on_done, name, len(scenarios))
        traces = run_scenarios(make, scenarios, workers=request.workers, together=request.together, on_done=report)
        results[name] = _write(request.out if name == "checkpoint" else request.out / name, traces, scenarios)
    for name in BASELINES:
        results[name] = _write(request.out / name, run_baseline(name, scenarios), scenarios)
    return results


def _report(on_done: Callable[[str, int, int], None], name: str, total: int, done: int) -> None:
    on_done(name, done, total)


def _write(folder: Path, traces: list[Trace], scenarios: list[Scenario]) -> dict[str, Any]:
    scores = score(traces, scenarios)
    save_traces(folder / "traces.jsonl", traces)
    write_lines(folder / "scores.json", [json.dumps(scores, indent=1)])
    return scores
