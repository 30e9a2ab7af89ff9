"""The world's scores as items that can be resampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.behaviour import CORRECTION, Tally, waiting_scores
from inference.evaluation.scorers.questions import is_right
from inference.evaluation.scorers.speaking import Counts, Matched, count_matched, match_speech, speaking_scores
from inference.evaluation.suites.suite import Pairs

SUITE_NAME = "world"
_LISTS = ("onset_errors", "onset_frames")
_COUNTS = tuple(f.name for f in dataclasses.fields(Counts) if f.name not in _LISTS)


def score(pairs: Pairs, judge: Judge | None = None) -> list[Item]:
    """One item for each stream, one for each of its spans, and one for each question."""
    items: list[Item] = []
    for trace, scenario in pairs:
        if trace.mode == "push":
            items += _stream_items(trace, scenario)
        elif trace.mode == "offline":
            items += _question_items(trace, scenario)
    return items


def aggregate(items: Sequence[Item]) -> Metrics:
    """Metrics of any multiset of items; None where nothing of the sort was there."""
    metrics: Metrics = {}
    streams = [item for item in items if item.item == "stream"]
    if streams:
        total = _counts(streams)
        for section, values in speaking_scores(total).items():
            metrics |= {f"{section}.{name}": value for name, value in values.items()}
        metrics |= _waiting(streams)
        metrics |= _behaviours(streams)
    metrics |= _spans([item for item in items if item.item.startswith("span")], bool(streams))
    metrics |= _questions([item for item in items if item.item.startswith("q")])
    return metrics


def _stream_items(trace: Trace, scenario: Scenario) -> list[Item]:
    matched = match_speech(trace, scenario)
    counts = count_matched(matched, scenario)
    waiting = waiting_scores([(matched, scenario)])
    waits = float(waiting["early_per_scenario"] is not None)
    values = {name: float(getattr(counts, name)) for name in _COUNTS}
    spans = waiting["spans"]
    values |= {"waiting_spans": float(spans), "waiting_scenarios": waits, "waiting_early": float(waiting["early"])}
    values["waiting_hits"] = float(round((waiting["in_time"] or 0.0) * spans))
    values["waiting_right"] = float(round((waiting["in_time_right_words"] or 0.0) * spans))
    behaviours = list(dict.fromkeys(scenario.meta.get("behaviours", [])))
    stream = Item(
        suite=SUITE_NAME,
        scenario_id=scenario.id,
        item="stream",
        task=behaviours[0] if behaviours else "stream",
        mode="push",
        values=values,
        series={name: [float(value) for value in getattr(counts, name)] for name in _LISTS},
        details={"behaviours": behaviours, "said": [_said(u) for u in matched.speech.utterances]},
    )
    return [stream, *_span_items(matched, scenario)]


def _said(utterance: Any) -> dict[str, Any]:
    return {"t": utterance.t, "frame": utterance.first_frame, "text": utterance.text}


def _span_items(matched: Matched, scenario: Scenario) -> list[Item]:
    right = matched.hit_by(scenario)
    said = {span: matched.owners[point] for point, span in matched.pairs}
    items = []
    for index, span in enumerate(scenario.spans):
        owner = said.get(index)
        items.append(
            Item(
                suite=SUITE_NAME,
                scenario_id=scenario.id,
                item=f"span{index}",
                task=span.kind,
                mode="push",
                values={"hit": float(index in right), "right": float(right.get(index, False))},
                details={"a": span.a, "b": span.b, "truth": span.text, "reply": owner.text if owner is not None else ""},
            )
        )
    return items


def _question_items(trace: Trace, scenario: Scenario) -> list[Item]:
    return [
        Item(
            suite=SUITE_NAME,
            scenario_id=scenario.id,
            item=f"q{number}",
            task=question.kind,
            mode="offline",
            values={"right": float(is_right(reply, question))},
            details={"question": question.text, "truth": question.answer, "reply": reply},
        )
        for number, (question, reply) in enumerate(zip(scenario.questions, trace.answers, strict=True))
    ]


def _counts(streams: Iterable[Item]) -> Counts:
    total = Counts()
    for item in streams:
        counts = Counts(
            onset_errors=list(item.series["onset_errors"]), onset_frames=[int(n) for n in item.series["onset_frames"]]
        )
        for name in _COUNTS:
            setattr(counts, name, item.values[name] if name == "seconds" else int(item.values[name]))
        total.add(counts)
    return total


def _waiting(streams: Sequence[Item]) -> Metrics:
    sums = {
        name: sum(item.values[f"waiting_{name}"] for item in streams) for name in ("spans", "hits", "right", "early", "scenarios")
    }
    tally = Tally(spans=int(sums["spans"]), hits=int(sums["hits"]), right=int(sums["right"]))
    shares = tally.shares()
    early = sums["early"] / sums["scenarios"] if sums["scenarios"] else None
    names = ("in_time", "in_time_right_words")
    return {f"waiting.{name}": shares[name] for name in names} | {"waiting.early_per_scenario": early}


def _behaviours(streams: Sequence[Item]) -> Metrics:
    metrics: Metrics = {}
    names = sorted({name for item in streams for name in item.details["behaviours"]})
    for name in names:
        counts = _counts(item for item in streams if name in item.details["behaviours"])
        for key, value in speaking_scores(counts)["speak"].items():
            metrics[f"behaviour.{name}.{key}"] = value
    return metrics


def _spans(spans: Sequence[Item], streamed: bool) -> Metrics:
    metrics: Metrics = {}
    tallies: dict[str, Tally] = {}
    for item in spans:
        tallies.setdefault(item.task, Tally()).add(bool(item.values["hit"]), bool(item.values["right"]))
    if streamed:
        metrics |= {f"correction.{key}": value for key, value in _shares(tallies.get(CORRECTION, Tally())).items()}
    for kind, tally in sorted(tallies.items()):
        metrics |= {f"kind.{kind}.{key}": value for key, value in _shares(tally).items()}
    return metrics


def _shares(tally: Tally) -> Metrics:
    return {key: value for key, value in tally.shares().items() if key != "spans"}


def _questions(questions: Sequence[Item]) -> Metrics:
    right: dict[str, float] = {}
    asked: dict[str, int] = {}
    for item in questions:
        for kind in (item.task, "all"):
            asked[kind] = asked.get(kind, 0) + 1
            right[kind] = right.get(kind, 0.0) + item.values["right"]
    return {f"qa.{kind}": right[kind] / count for kind, count in sorted(asked.items())}
