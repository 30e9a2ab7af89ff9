"""From traces to scores of every suite that their scenarios belong to. Nothing here has seen an engine."""

from __future__ import annotations

from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.suites.registry import EVERYWHERE, get_suite
from inference.evaluation.suites.suite import Pairs
from model.errors import InputError


def pair(traces: Sequence[Trace], scenarios: Sequence[Scenario]) -> list[tuple[Trace, Scenario]]:
    """Each trace with its scenario.

    Raises:
        InputError: a trace names an unknown scenario, or does not have one reply for each question.
    """
    by_id = {scenario.id: scenario for scenario in scenarios}
    found = []
    for trace in traces:
        scenario = by_id.get(trace.scenario_id)
        if scenario is None:
            raise InputError(f"a trace names scenario {trace.scenario_id!r}, unknown to the scenario file; use matching files")
        asked, given = len(scenario.questions), len(trace.answers)
        if trace.mode == "offline" and asked != given:
            raise InputError(
                f"the trace of scenario {scenario.id!r} has {given} answers to {asked} questions; run the evaluation again"
            )
        found.append((trace, scenario))
    return found


def score_items(pairs: Pairs, judge: Judge | None = None) -> list[Item]:
    """Items of all suites that the scenarios name, and of those that score every stream."""
    names = list(dict.fromkeys(scenario.suite for _, scenario in pairs))
    items: list[Item] = []
    for name in names:
        items += get_suite(name).score([(trace, scenario) for trace, scenario in pairs if scenario.suite == name], judge)
    for name in EVERYWHERE:
        items += get_suite(name).score(pairs, judge)
    return items


def suite_metrics(items: Sequence[Item]) -> dict[str, Metrics]:
    """Metrics by suite."""
    names = list(dict.fromkeys(item.suite for item in items))
    return {name: get_suite(name).aggregate([item for item in items if item.suite == name]) for name in names}
