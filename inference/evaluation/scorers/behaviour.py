"""What was asked of a stream, one by one: scores by behaviour and by kind of span, corrections, and answers that had to wait."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.evaluation.schema import Scenario, Span
from inference.evaluation.scorers.speaking import Counts, Matched, count_matched, speaking_scores

Streams = Sequence[tuple[Matched, Scenario]]

CORRECTION = "correction"
WAITING = ("answer", "alert")
"""Kinds of spans that can lie later than the prompt that they answer, because the evidence does."""
_SLACK = 1e-6


@dataclass
class Tally:
    """Spans of one sort."""

    spans: int = 0
    hits: int = 0
    """Spans that were hit in time."""
    right: int = 0
    """Hits with the right words."""

    def add(self, hit: bool, right: bool) -> None:
        self.spans += 1
        self.hits += hit
        self.right += hit and right

    def shares(self) -> dict[str, Any]:
        """Shares of all spans: `in_time`, and `in_time_right_words`; None where there are none."""
        shares = {"in_time": self.hits, "in_time_right_words": self.right}
        return {"spans": self.spans, **{name: n / self.spans if self.spans else None for name, n in shares.items()}}


@dataclass
class _Waiting:
    """Answers whose evidence came later than their prompt."""

    tally: Tally = field(default_factory=Tally)
    scenarios: int = 0
    early: int = 0


def by_behaviour(streams: Streams) -> dict[str, dict[str, Any]]:
    """Speaking scores of the scenarios whose `meta` names a behaviour, by its name; one scenario can count under several.

    Returns:
        For each the ratios of `speak`, and `scenarios` and `spans`: how many there are.
    """
    totals: dict[str, Counts] = {}
    scenarios: dict[str, int] = {}
    for matched, scenario in streams:
        counts = count_matched(matched, scenario)
        for name in dict.fromkeys(scenario.meta.get("behaviours", [])):
            totals.setdefault(name, Counts()).add(counts)
            scenarios[name] = scenarios.get(name, 0) + 1
    return {
        name: {"scenarios": scenarios[name], "spans": counts.spans, **speaking_scores(counts)["speak"]}
        for name, counts in sorted(totals.items())
    }


def by_kind(streams: Streams) -> dict[str, dict[str, Any]]:
    """Of each kind of span: how many there are, the share hit in time, and the share hit in time with the right words."""
    tallies: dict[str, Tally] = {}
    for matched, scenario in streams:
        right = matched.hit_by(scenario)
        for index, span in enumerate(scenario.spans):
            tallies.setdefault(span.kind, Tally()).add(index in right, right.get(index, False))
    return {kind: tally.shares() for kind, tally in sorted(tallies.items())}


def correction_scores(streams: Streams) -> dict[str, Any]:
    """Of the corrections in the truth: the share made in time, and in time with the right words."""
    tally = Tally()
    for matched, scenario in streams:
        right = matched.hit_by(scenario)
        for index, span in enumerate(scenario.spans):
            if span.kind == CORRECTION:
                tally.add(index in right, right.get(index, False))
    return tally.shares()


def waiting_scores(streams: Streams) -> dict[str, Any]:
    """Answers that had to wait for their evidence.

    Returns:
        `spans`, `in_time` and `in_time_right_words` of the answers and alerts whose span begins after the first frame that
        follows their prompt; `early`: utterances that began in the meantime and hit nothing else; `early_per_scenario`: the
        same, for each scenario that holds such an answer (None where none does).
    """
    total = _Waiting()
    for matched, scenario in streams:
        right = matched.hit_by(scenario)
        pending: set[int] = set()
        waits = False
        for index, span in enumerate(scenario.spans):
            asked = _asked_at(span, scenario)
            first = matched.spans[index][0]
            if asked is None or first <= asked:
                continue
            waits = True
            total.tally.add(index in right, right.get(index, False))
            pending |= set(range(asked, first))
        paired = {point for point, _ in matched.pairs}
        total.scenarios += waits
        total.early += sum(
            owner is not None and place not in paired and matched.points[place] in pending
            for place, owner in enumerate(matched.owners)
        )
    early = total.early / total.scenarios if total.scenarios else None
    return {**total.tally.shares(), "early": total.early, "early_per_scenario": early}


def _asked_at(span: Span, scenario: Scenario) -> int | None:
    """The first frame at which a span's prompt could have been answered; None where it answers none."""
    if span.kind not in WAITING:
        return None
    if span.prompt is not None:
        asked = scenario.prompts[span.prompt].t
    else:
        asked = max((prompt.t for prompt in scenario.prompts if prompt.t <= span.a), default=-1.0)
        if asked < 0:
            return None
    return math.ceil(asked * scenario.fps - _SLACK)
