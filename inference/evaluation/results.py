"""Evaluation folders, read back: items, scores, traces and what produced them."""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.evaluation.items import Item, load_items
from inference.evaluation.run_record import RunRecord, load_record
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scoring import pair, score_items
from inference.evaluation.storage import load_scenario_files, load_traces
from inference.evaluation.suites.lmms.samples import read_samples, sample_files
from inference.evaluation.suites.lmms.totals import read_totals, results_files
from inference.evaluation.suites.suite import Suite
from model.errors import InputError

ITEMS, TRACES, SCORES = "items.jsonl", "traces.jsonl", "scores.json"


@dataclass(kw_only=True)
class Results:
    """One evaluation of one model."""

    name: str
    """What tables call it."""
    folder: Path
    items: list[Item]
    record: RunRecord
    scores: dict[str, Any] = field(default_factory=dict)
    """Of `scores.json`, where there is one."""
    totals: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """Of an lmms-eval run: value and standard error of each metric."""
    notes: list[str] = field(default_factory=list)
    """What is missing, one sentence each."""

    @property
    def suites(self) -> list[str]:
        """Names in the order in which they occur."""
        return list(dict.fromkeys(item.suite for item in self.items))

    def of(self, suite: str, mode: str | None = None) -> list[Item]:
        """Items of one suite, perhaps of one mode only."""
        return [item for item in self.items if item.suite == suite and mode in (None, item.mode)]

    @functools.cached_property
    def traces(self) -> list[Trace]:
        """All traces of the folder; none where it holds no file of them."""
        path = self.folder / TRACES
        return load_traces(path) if path.is_file() else []


def load_results(name: str, folder: Path, scenarios: Mapping[str, Scenario] | None = None) -> Results:
    """Read a folder that `moss eval` or `moss eval score` wrote, or the samples that lmms-eval logged.

    Args:
        scenarios: by id; a folder without items is scored with them.

    Raises:
        InputError: the folder holds neither items nor traces, or traces alone and no scenario is known for them.
    """
    record = load_record(folder)
    notes: list[str] = []
    items: list[Item] = []
    totals: dict[str, tuple[float, float | None]] = {}
    if (folder / ITEMS).is_file():
        items = load_items(folder / ITEMS)
    elif (folder / TRACES).is_file():
        items = _scored(folder, dict(scenarios) if scenarios else scenarios_of(record))
        notes.append(f"{name}: scored now from its traces, without a judge.")
    elif sample_files(folder) or results_files(folder):
        items, record.fingerprints, found = read_samples(folder)
        totals = read_totals(folder)
        notes += [f"{name}: {note}" for note in found]
        if not items:
            notes.append(f"{name}: lmms-eval logged no samples (--log_samples), so only its totals are known.")
    else:
        raise InputError(f"{folder} holds neither {ITEMS} nor {TRACES}; give a folder that `moss eval` or lmms-eval wrote")
    path = folder / SCORES
    try:
        scores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); run the evaluation again") from None
    return Results(name=name, folder=folder, items=items, record=record, scores=scores, totals=totals, notes=notes)


def _scored(folder: Path, scenarios: Mapping[str, Scenario]) -> list[Item]:
    if not scenarios:
        raise InputError(f"{folder} has traces and no {ITEMS}; name --scenarios, or run `moss eval score`")
    return score_items(pair(load_traces(folder / TRACES), list(scenarios.values())))


def baselines_in(folder: Path, scenarios: Mapping[str, Scenario] | None = None) -> list[Results]:
    """The evaluations in sub-folders, as `moss eval` writes its baselines."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [
        load_results(path.name, path, scenarios) for path in inside if (path / ITEMS).is_file() or (path / TRACES).is_file()
    ]  # fmt: skip


def scenarios_of(record: RunRecord) -> dict[str, Scenario]:
    """The scenarios that a run names, as far as its files are still there; paths of videos are absolute."""
    return load_by_id([Path(name) for name in record.scenario_files if Path(name).is_file()])


def load_by_id(paths: Sequence[Path]) -> dict[str, Scenario]:
    """Scenarios of files by id; paths of videos are absolute.

    Raises:
        InputError: as `load_scenario_files`.
    """
    if not paths:
        return {}
    found: dict[str, Scenario] = {}
    for scenario in load_scenario_files(list(paths)):
        found[scenario.id] = scenario
    folder = paths[0].parent
    for scenario in found.values():  # those of later files are absolute already
        if scenario.video:
            scenario.video = str((folder / scenario.video).absolute())
        scenario.frames = [str((folder / name).absolute()) for name in scenario.frames]
    return found


def is_higher_better(suite: Suite, metric: str) -> bool:
    """Which way a suite's metric goes; its table may hold patterns such as `*.onset_error_median`."""
    for pattern, higher in suite.higher_is_better.items():
        if fnmatch.fnmatchcase(metric, pattern):
            return higher
    return True


def is_neutral(suite: Suite, metric: str) -> bool:
    """Whether neither more nor less is better: the suite's `extra["neutral"]` has its name or a pattern of it."""
    return any(fnmatch.fnmatchcase(metric, pattern) for pattern in suite.extra.get("neutral", ()))
