"""Everything on a page of evaluations, out of their folders."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.evaluation.comparing import Compared, Margins, compare_results
from inference.evaluation.reporting.distributions import distributions
from inference.evaluation.reporting.models import describe, manifests_of, what_is_missing
from inference.evaluation.reporting.selection import choose
from inference.evaluation.reporting.timelines import timeline
from inference.evaluation.results import Results, is_higher_better
from inference.evaluation.run_record import fingerprints
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.statistics.bootstrap import BootstrapSettings, Report, bootstrap
from inference.evaluation.suites.registry import EVERYWHERE, get_suite
from model.errors import InputError

JsonObject = dict[str, Any]
Progress = Callable[[str, int, int], None]
"""Called with (what is being computed, done, all)."""


@dataclass(kw_only=True)
class ReportRequest:
    """What is to be reported."""

    models: list[Results]
    baselines: list[Results] = field(default_factory=list)
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)
    """By id, for timelines; paths of videos are absolute."""
    statistics: BootstrapSettings = field(default_factory=BootstrapSettings)
    pairs: Sequence[tuple[str, str]] | None = None
    """Names of models to compare; None: every other model with the first."""
    keeps: Sequence[str] = ()
    """What the second of each pair must keep, see `compare_results`."""
    margins: Margins = field(default_factory=Margins)
    timelines: int = 12
    """Scenarios that are shown."""


def build(request: ReportRequest, on_done: Progress | None = None) -> JsonObject:
    """The content of `report.json`.

    Raises:
        InputError: two models of one name, a pair names an unknown one, or runs cannot be compared.
    """
    everyone = _with_names(request)
    traces = {results.name: results.traces for results in everyone}
    described = [describe(one, traces[one.name], one in request.baselines) for one in everyone]
    comparisons = [found.as_dict() for found in _comparisons(request, on_done)]  # first: what is refused is refused at once
    suites = [_suite(name, everyone, request.statistics, on_done) for name in _suite_names(everyone)]
    needing_judge = [suite["title"] for suite in suites if get_suite(suite["name"]).needs_judge]
    notes = what_is_missing(everyone, described, needing_judge)
    scenarios, changed = _unchanged(request.scenarios, everyone)
    if changed:
        notes.append(
            f"{len(changed)} scenarios were changed after they were run, and have no timelines; the first is {changed[0]}."
        )
    lines = _timelines(request, scenarios, everyone, traces)
    if not lines:
        notes.append("No timelines: no scenario file was given or found, or none of its scenarios was run.")
    return {
        "statistics": dataclasses.asdict(request.statistics),
        "models": described,
        "manifests": manifests_of(everyone),
        "suites": suites,
        "distributions": distributions({one.name: one.items for one in everyone}),
        "comparisons": comparisons,
        "timelines": lines,
        "notes": list(dict.fromkeys(notes)),
    }


def _with_names(request: ReportRequest) -> list[Results]:
    """All evaluations; a baseline that is given as a model too is left out, and names are unique."""
    folders = {one.folder.resolve() for one in request.models}
    request.baselines = [one for one in request.baselines if one.folder.resolve() not in folders]
    everyone = [*request.models, *request.baselines]
    repeated = [name for name, count in Counter(one.name for one in everyone).items() if count > 1]
    if repeated:
        raise InputError(f"two evaluations are called {repeated[0]!r}; give each --eval another name, or leave out baselines")
    if not everyone:
        raise InputError("no evaluation was given; name at least one folder that `moss eval` wrote")
    return everyone


def _suite_names(everyone: Sequence[Results]) -> list[str]:
    """Of all runs; those that score every stream come last."""
    names = list(dict.fromkeys(name for results in everyone for name in results.suites))
    return [name for name in names if name not in EVERYWHERE] + [name for name in names if name in EVERYWHERE]


def _suite(name: str, everyone: Sequence[Results], settings: BootstrapSettings, on_done: Progress | None) -> JsonObject:
    suite = get_suite(name)
    models: JsonObject = {}
    metrics: dict[str, None] = {}
    for results in everyone:
        items = results.of(name)
        if not items:
            continue
        report = _labelled(on_done, f"{name}, {results.name}")
        found = bootstrap(items, suite.aggregate, settings, suite.extra.get("sums"), report)
        metrics |= dict.fromkeys(found)
        models[results.name] = {
            "items": len(items),
            "clusters": len({item.cluster for item in items}),
            "tasks": dict(Counter(item.task for item in items)),
            "modes": dict(Counter(item.mode for item in items)),
            "metrics": {metric: dataclasses.asdict(one) for metric, one in found.items()},
        }
    return {
        "name": name,
        "title": suite.title,
        "about": suite.about,
        "main": suite.main,
        "metrics": list(metrics),
        "lower_is_better": [metric for metric in metrics if not is_higher_better(suite, metric)],
        "models": models,
    }


def _comparisons(request: ReportRequest, on_done: Progress | None) -> list[Compared]:
    by_name = {one.name: one for one in [*request.models, *request.baselines]}
    pairs = request.pairs
    if pairs is None:
        pairs = [(request.models[0].name, other.name) for other in request.models[1:]] if request.models else []
        pairs = [(a, b) for a, b in pairs if set(by_name[a].suites) & set(by_name[b].suites)]
    found = []
    for a, b in pairs:
        for name in (a, b):
            if name not in by_name:
                raise InputError(f"--compare names {name!r}, which is no evaluation; use one of {', '.join(by_name)}")
        report = _labelled(on_done, f"{a} and {b}")
        first, second = by_name[a], by_name[b]
        found.append(
            compare_results(first, second, request.statistics, keeps=request.keeps, margins=request.margins, on_done=report)
        )
    return found


def _labelled(on_done: Progress | None, what: str) -> Report | None:
    return None if on_done is None else functools.partial(on_done, what)


def _unchanged(scenarios: Mapping[str, Scenario], everyone: Sequence[Results]) -> tuple[dict[str, Scenario], list[str]]:
    """The scenarios that say what they said when they were run, and the ids of the others."""
    prints = fingerprints(scenarios.values())
    changed = {key for one in everyone for key, value in one.record.fingerprints.items() if prints.get(key, value) != value}
    return {key: scenario for key, scenario in scenarios.items() if key not in changed}, sorted(changed)


def _timelines(
    request: ReportRequest, scenarios: Mapping[str, Scenario], everyone: Sequence[Results], traces: Mapping[str, Sequence[Trace]]
) -> list[JsonObject]:
    """Chosen by the first run that has items, an equal number of each suite."""
    first = next((one for one in everyone if one.items), None)
    names = [name for name in first.suites if name not in EVERYWHERE] if first else []
    if first is None or not names or request.timelines < 1:
        return []
    by_scenario: dict[str, dict[str, list[Trace]]] = {}
    for model, own in traces.items():
        for trace in own:
            if "baseline" in trace.engine:
                continue  # a rule, which always does the same
            by_scenario.setdefault(trace.scenario_id, {}).setdefault(model, []).append(trace)
    each = max(1, -(-request.timelines // len(names)))
    found: list[JsonObject] = []
    for name in names:
        items = [item for item in first.of(name) if item.scenario_id in scenarios and item.scenario_id in by_scenario]
        for mode in ("push", "poll", "offline", "teacher"):
            of_mode = [item for item in items if item.mode == mode]
            for scenario_id, why, score in choose(get_suite(name), of_mode, each if of_mode else 0):
                if scenario_id in {line["id"] for line in found}:
                    continue
                of_scenario = {one.name: [i for i in one.items if i.scenario_id == scenario_id] for one in everyone}
                line = timeline(scenarios[scenario_id], by_scenario[scenario_id], of_scenario)
                found.append(line | {"why": why, "score": score, "metric": get_suite(name).main})
    return found
