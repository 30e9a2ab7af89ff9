"""Replies of a stream against the spans in which they were due, as a judge sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge, JudgeRequest
from inference.evaluation.schema import Scenario, Span, Trace
from inference.evaluation.scorers.questions import normalise
from inference.evaluation.scorers.utterances import Utterance, read_speech
from inference.evaluation.suites.proactive_videoqa.pauc import pauc, without_late_losses
from inference.evaluation.suites.proactive_videoqa.prompts import JUDGE_SYSTEM, JUDGE_USER
from inference.evaluation.suites.suite import Pairs

NAME = "proactive_videoqa"
OMEGAS = {"pauc": 0.5, "pauc_0": 0.0, "pauc_1": 1.0}


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each stream and, with a judge, one for each span."""
    streams = [(trace, scenario, _replies(trace)) for trace, scenario in pairs if trace.mode == "push"]
    found = [_stream(scenario, replies) for _, scenario, replies in streams]
    if judge is None:
        return found
    requests: list[JudgeRequest[int]] = []
    places: list[tuple[Scenario, int, list[float]]] = []
    for _, scenario, replies in streams:
        for number, span in enumerate(scenario.spans):
            own = _requests(scenario, number, span, replies)
            places.append((scenario, number, [t for t, _ in own]))
            requests += [request for _, request in own]
    verdicts = iter(judge.ask(requests))
    for scenario, number, times in places:
        found.append(_span_item(scenario, number, [(t, float(next(verdicts) - 1)) for t in times]))
    return found


def _replies(trace: Trace) -> list[Utterance]:
    return [one for one in read_speech(trace).utterances if one.text.strip()]


def _requests(scenario: Scenario, number: int, span: Span, replies: Sequence[Utterance]) -> list[tuple[float, JudgeRequest[int]]]:
    """Each reply within the span is judged together with those before it; one that repeats another's words is not."""
    said: list[str] = []
    found = []
    for reply in replies:
        text = reply.text.strip()
        if span.a <= reply.t <= span.b and text not in said:
            said.append(text)
            user = JUDGE_USER.format(question=scenario.meta["question"], truth=span.text, reply=" ".join(said))
            messages = [{"role": "system", "content": JUDGE_SYSTEM}, {"role": "user", "content": user}]
            what = f"scenario {scenario.id} span {number} at {reply.t:g} s"
            found.append((reply.t, JudgeRequest(messages=messages, read=read_verdict, what=what)))
    return found


def read_verdict(reply: str) -> int:
    """The verdict 1 to 3 that a reply begins with.

    Raises:
        ValueError: it begins with something else.
    """
    found = re.match(r"\s*([123])(?!\d)", reply)
    if found is None:
        raise ValueError(f"the reply {reply[:40]!r} begins with none of 1, 2 and 3")
    return int(found[1])


def _span_item(scenario: Scenario, number: int, judged: list[tuple[float, float]]) -> Item:
    span = scenario.spans[number]
    kept = without_late_losses(judged, float(span.meta.get("related_end", span.b)))
    points = [(t - span.a, score) for t, score in kept]
    values = {name: pauc(points, span.b - span.a, omega) for name, omega in OMEGAS.items()}
    details = {"question": scenario.meta["question"], "truth": span.text, "span": [span.a, span.b], "scores": judged}
    return _item(scenario, f"span{number}", {"spans": 1.0, "answered": float(bool(judged)), **values}, details)


def _stream(scenario: Scenario, replies: Sequence[Utterance]) -> Item:
    """How many replies, how many of them say again what was said, and how many lie outside of all spans."""
    texts = [normalise(reply.text) for reply in replies]
    repeated = sum(text in texts[:place] for place, text in enumerate(texts))
    outside = sum(not any(span.a <= reply.t <= span.b for span in scenario.spans) for reply in replies)
    values = {"streams": 1.0, "replies": float(len(replies)), "repeated": float(repeated), "outside": float(outside)}
    details = {"question": scenario.meta["question"], "replies": [[reply.t, reply.text] for reply in replies]}
    return _item(scenario, "stream", values, details)


def _item(scenario: Scenario, name: str, values: dict[str, float], details: dict[str, object]) -> Item:
    details = {**details, "cluster": scenario.video or scenario.id}
    task = str(scenario.meta.get("task", "all"))
    return Item(suite=NAME, scenario_id=scenario.id, item=name, task=task, mode="push", values=values, details=details)


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means over spans and shares of replies, by task and over all; see the package."""
    sums: dict[str, dict[str, float]] = {}
    for item in items:
        for prefix in (f"{item.task}.", ""):
            total = sums.setdefault(prefix, {})
            for name, value in item.values.items():
                total[name] = total.get(name, 0.0) + value
    metrics: Metrics = {}
    for prefix, total in sums.items():
        if total.get("spans"):
            metrics |= {f"{prefix}{name}": total[name] / total["spans"] for name in (*OMEGAS, "answered")}
        if total.get("streams"):
            replies = total["replies"]
            metrics[f"{prefix}repetition"] = total["repeated"] / replies if replies else None
            metrics[f"{prefix}out_of_span"] = total["outside"] / replies if replies else None
            metrics[f"{prefix}replies_per_stream"] = replies / total["streams"]
    return metrics
