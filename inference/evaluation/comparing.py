"""Two evaluation folders against each other, suite by suite, and whether the second keeps what the first can do."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.evaluation.items import Item
from inference.evaluation.results import Results, is_higher_better, is_neutral
from inference.evaluation.schema import MODES
from inference.evaluation.statistics.bootstrap import BootstrapSettings, Report
from inference.evaluation.statistics.comparison import Comparison, Difference, check_same_scenarios, compare
from inference.evaluation.statistics.non_inferiority import KEPT, Kept, judge_kept
from inference.evaluation.statistics.unpaired import compare_totals
from inference.evaluation.suites.lmms.samples import NAME as LMMS
from inference.evaluation.suites.registry import get_suite
from model.errors import InputError

BETTER, WORSE, OTHER, SAME = "better", "worse", "differs", "no difference shown"


@dataclass(frozen=True, kw_only=True)
class Margins:
    """The largest loss that does not matter."""

    default: float = 0.01
    by_metric: dict[str, float] = field(default_factory=dict)
    """By pattern of the metric's name, with or without its suite."""

    def of(self, suite: str, metric: str) -> float:
        for pattern, margin in self.by_metric.items():
            if fnmatch.fnmatchcase(metric, pattern) or fnmatch.fnmatchcase(f"{suite}/{metric}", pattern):
                return margin
        return self.default


@dataclass(kw_only=True)
class Compared:
    """The second run against the first."""

    a: str
    b: str
    suites: dict[str, Comparison]
    keeps: dict[str, Kept] = field(default_factory=dict)
    """By `SUITE/METRIC`, with `MODE:` before it where only items of that mode were asked for."""
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether everything that was asked for is kept."""
        return all(one.verdict == KEPT for one in self.keeps.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        suites = {
            name: dataclasses.asdict(found)
            | {"metrics": {m: dataclasses.asdict(d) | {"verdict": verdict(name, m, d, found)} for m, d in found.metrics.items()}}
            | {"changed": {key: dataclasses.asdict(c) | {"p": c.p} for key, c in found.changed.items()}}
            for name, found in self.suites.items()
        }
        keeps = {name: dataclasses.asdict(found) for name, found in self.keeps.items()}
        return {"a": self.a, "b": self.b, "suites": suites, "keeps": keeps, "kept": self.kept, "notes": self.notes}


def compare_results(
    a: Results,
    b: Results,
    settings: BootstrapSettings | None = None,
    *,
    keeps: Sequence[str] = (),
    margins: Margins | None = None,
    on_done: Report | None = None,
) -> Compared:
    """Compare all suites that both runs have.

    Args:
        keeps: what the second run must keep: a mode (all metrics of the items of that mode), or patterns of metrics, with
            or without their suite.
        on_done: progress; starts again with each suite.

    Raises:
        InputError: common scenarios differ, nothing is common, or `keeps` names what neither run has.
    """
    check_same_scenarios(a.record.fingerprints, b.record.fingerprints, (a.name, b.name))
    common = [name for name in a.suites if name in b.suites]
    of_totals = not common and bool(a.totals.keys() & b.totals.keys())
    if not common and not of_totals:
        raise InputError(f"{a.name} and {b.name} have no suite in common; evaluate both on the same scenarios")
    if not of_totals:
        _check_keeps(keeps, a, b, common)
    found = Compared(a=a.name, b=b.name, suites={})
    if of_totals:
        found.suites[LMMS] = compare_totals(a.totals, b.totals, settings)
        found.notes.append("Totals with standard errors only: the runs are taken for independent, intervals are too wide.")
    elif not (a.record.fingerprints and b.record.fingerprints):
        found.notes.append("One of the runs has no fingerprints of its scenarios: that both saw the same was not checked.")
    for name in common:
        found.suites[name] = _compare(name, a.of(name), b.of(name), settings, on_done)
    for one in found.suites.values():
        if one.only_a or one.only_b:
            found.notes.append(
                f"{one.only_a} items of {a.name} and {one.only_b} of {b.name} have no counterpart and are left out."
            )
    for wanted in keeps:
        pattern = "*" if of_totals and wanted == "offline" else wanted
        chosen = _of_mode(wanted, a, b, settings, on_done) if pattern in MODES else _of_pattern(pattern, found.suites)
        if not chosen:
            raise _not_found(wanted, [f"{suite}/{metric}" for suite, one in found.suites.items() for metric in one.metrics])
        for label, (suite, metric, difference) in chosen.items():
            margin = (margins or Margins()).of(suite, metric)
            found.keeps[label] = judge_kept(difference, margin, is_higher_better(get_suite(suite), metric))
    return found


def verdict(suite: str, metric: str, difference: Difference, comparison: Comparison) -> str:
    """What the corrected p value says at the confidence of the comparison: better | worse | differs | no difference shown.

    `differs` is said of metrics of which neither more nor less is better.
    """
    level = 1 - comparison.settings.confidence
    if difference.p_holm is None or difference.p_holm >= level or not difference.difference:
        return SAME
    if is_neutral(get_suite(suite), metric):
        return OTHER
    return BETTER if (difference.difference > 0) == is_higher_better(get_suite(suite), metric) else WORSE


_Chosen = dict[str, tuple[str, str, Difference]]


def _of_mode(mode: str, a: Results, b: Results, settings: BootstrapSettings | None, on_done: Report | None) -> _Chosen:
    """All metrics of the items of one mode that go up or down."""
    chosen: _Chosen = {}
    for suite in a.suites:
        ours, theirs = a.of(suite, mode), b.of(suite, mode)
        if ours and theirs:
            for metric, difference in _compare(suite, ours, theirs, settings, on_done).metrics.items():
                if (difference.a, difference.b) != (None, None) and not is_neutral(get_suite(suite), metric):
                    chosen[f"{mode}: {suite}/{metric}"] = (suite, metric, difference)
    return chosen


def _of_pattern(pattern: str, suites: Mapping[str, Comparison]) -> _Chosen:
    chosen: _Chosen = {}
    for suite, comparison in suites.items():
        for metric, difference in comparison.metrics.items():
            label = f"{suite}/{metric}"
            if fnmatch.fnmatchcase(metric, pattern) or fnmatch.fnmatchcase(label, pattern):
                chosen[label] = (suite, metric, difference)
    return chosen


def _compare(
    name: str, a: Sequence[Item], b: Sequence[Item], settings: BootstrapSettings | None, on_done: Report | None
) -> Comparison:  # fmt: skip
    suite = get_suite(name)
    return compare(a, b, suite.aggregate, settings, suite.extra.get("sums"), on_done)


def _check_keeps(keeps: Sequence[str], a: Results, b: Results, common: Sequence[str]) -> None:
    """Before long work.

    Raises:
        InputError: something to be kept is in neither run.
    """
    if not keeps:
        return
    names = [(suite, metric) for suite in common for metric in get_suite(suite).aggregate(a.of(suite))]
    for wanted in keeps:
        if wanted in MODES:
            known = any(a.of(suite, wanted) and b.of(suite, wanted) for suite in common)
        else:
            known = any(fnmatch.fnmatchcase(name, wanted) for suite, metric in names for name in (metric, f"{suite}/{metric}"))
        if not known:
            raise _not_found(wanted, [f"{suite}/{metric}" for suite, metric in names])


def _not_found(wanted: str, names: Sequence[str]) -> InputError:
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return InputError(f"--keeps {wanted}: no metric of that name or mode in both runs; use a mode that was run or one of {shown}")
