"""Replies of a stream against the spans in which they were due, as a judge sees them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge, JudgeRequest
from inference.evaluation.schema import Scenario, Span, Trace
from inference.evaluation.scorers.questions import normalise
from inference.evaluation.scorers.utterances import Utterance, read_speech
from inference.evaluation.suites.parsing import strict_yes_no
from inference.evaluation.suites.proactive_videoqa.pauc import MOST, pauc, without_late_losses
from inference.evaluation.suites.proactive_videoqa.prompts import JUDGE_SYSTEM, JUDGE_USER, REPEATS_SYSTEM, REPEATS_USER
from inference.evaluation.suites.suite import Pairs

NAME = "proactive_videoqa"
OMEGAS = {"pauc": 0.5, "pauc_0": 0.0, "pauc_1": 1.0}


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each stream and each of its spans; some of their values need a judge."""
    streams = [(scenario, _replies(trace)) for trace, scenario in pairs if trace.mode == "push"]
    verdicts = None
    if judge is not None:
        asked = [request for scenario, replies in streams for request in _requests(scenario, replies)]
        verdicts = iter(judge.ask(asked))
    return [item for scenario, replies in streams for item in _items(scenario, replies, verdicts)]


def _replies(trace: Trace) -> list[Utterance]:
    return [one for one in read_speech(trace).utterances if one.text.strip()]


def _within(span: Span, replies: Sequence[Utterance]) -> list[tuple[float, str]]:
    """Time of each reply within the span, with all that was said in it so far; those that repeat another's words are left out."""
    said: list[str] = []
    found = []
    for reply in replies:
        text = reply.text.strip()
        if span.a <= reply.t <= span.b and text not in said:
            said.append(text)
            found.append((reply.t, " ".join(said)))
    return found


def _requests(scenario: Scenario, replies: Sequence[Utterance]) -> list[JudgeRequest[Any]]:
    """What of each span was said at each moment, then whether each reply says anything new."""
    found: list[JudgeRequest[Any]] = []
    for number, span in enumerate(scenario.spans):
        for t, said in _within(span, replies):
            user = JUDGE_USER.format(question=scenario.meta["question"], truth=span.text, reply=said)
            messages = [{"role": "system", "content": JUDGE_SYSTEM}, {"role": "user", "content": user}]
            what = f"scenario {scenario.id} span {number} at {t:g} s"
            found.append(JudgeRequest(messages=messages, read=read_verdict, what=what))
    for place in _open(replies):
        before = "\n".join(one.text.strip() for one in replies[:place])
        user = REPEATS_USER.format(before=before, reply=replies[place].text.strip())
        messages = [{"role": "system", "content": REPEATS_SYSTEM}, {"role": "user", "content": user}]
        what = f"scenario {scenario.id} reply at {replies[place].t:g} s"
        found.append(JudgeRequest(messages=messages, read=read_repeats, what=what))
    return found


def _open(replies: Sequence[Utterance]) -> list[int]:
    """Places of replies of which only a judge can say whether they repeat: not the first, nor any with an earlier one's words."""
    return [place for place, repeats in enumerate(_repeats(replies)) if place and not repeats]


def _repeats(replies: Sequence[Utterance]) -> list[bool]:
    texts = [normalise(reply.text) for reply in replies]
    return [text in texts[:place] for place, text in enumerate(texts)]


def read_verdict(reply: str) -> int:
    """The verdict 1 to 3 that a reply begins with.

    Raises:
        ValueError: it begins with something else.
    """
    found = re.match(r"\s*([123])(?!\d)", reply)
    if found is None:
        raise ValueError(f"the reply {reply[:40]!r} begins with none of 1, 2 and 3")
    return int(found[1])


def read_repeats(reply: str) -> bool:
    """Yes or no as the first word.

    Raises:
        ValueError: it is another one.
    """
    found = strict_yes_no(reply)
    if found is None:
        raise ValueError(f"the reply {reply[:40]!r} begins with neither yes nor no")
    return found


def word_f1(said: str, truth: str) -> float:
    """F1 of the words that two texts have in common, each as often as both have it, case and punctuation apart."""
    ours, theirs = normalise(said).split(), normalise(truth).split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def _items(scenario: Scenario, replies: Sequence[Utterance], verdicts: Iterator[Any] | None) -> list[Item]:
    """Spans, then the stream."""
    found, areas = [], []
    for number, span in enumerate(scenario.spans):
        within = _within(span, replies)
        words = _points(span, [(t, MOST * word_f1(said, span.text)) for t, said in within])
        values = {"spans": 1.0, "answered": float(bool(within)), "pauc_words": pauc(words, span.b - span.a)}
        details: dict[str, object] = {"question": scenario.meta["question"], "truth": span.text, "span": [span.a, span.b]}
        if verdicts is not None:
            judged = [(t, float(next(verdicts) - 1)) for t, _ in within]
            points = _points(span, judged)
            values |= {name: pauc(points, span.b - span.a, omega) for name, omega in OMEGAS.items()}
            areas.append(values["pauc"])
            details["scores"] = judged
        found.append(_item(scenario, f"span{number}", values, details))
    new = None if verdicts is None else [not next(verdicts) for _ in _open(replies)]
    return [*found, _stream(scenario, replies, areas, new)]


def _points(span: Span, scored: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    kept = without_late_losses(scored, float(span.meta.get("related_end", span.b)))
    return [(t - span.a, score) for t, score in kept]


def _stream(scenario: Scenario, replies: Sequence[Utterance], areas: Sequence[float], new: Sequence[bool] | None) -> Item:
    """How many replies, how many of them say again what was said, and how many lie outside of all spans.

    Args:
        areas: `pauc` of its spans, with a judge.
        new: by the judge, whether each of the replies that `_open` names says anything new; None without one.
    """
    count = len(replies)
    repeated = sum(_repeats(replies))
    outside = sum(not any(span.a <= reply.t <= span.b for span in scenario.spans) for reply in replies)
    values = {"streams": 1.0, "replies": float(count), "repeated": float(repeated), "outside": float(outside)}
    if new is not None:
        by_judge = repeated + new.count(False)
        loss = (3 * by_judge + 2 * outside) / count if count else 0.0
        values |= {"repeated_judged": float(by_judge), "reward": 3 * sum(areas) / len(areas) - loss}
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
            known = [name for name in (*OMEGAS, "pauc_words", "answered") if name in total]
            metrics |= {f"{prefix}{name}": total[name] / total["spans"] for name in known}
        if total.get("streams"):
            replies = total["replies"]
            metrics[f"{prefix}repetition"] = total["repeated"] / replies if replies else None
            if "reward" in total:
                metrics[f"{prefix}repetition_judged"] = total["repeated_judged"] / replies if replies else None
                metrics[f"{prefix}reward"] = total["reward"] / total["streams"]
            metrics[f"{prefix}out_of_span"] = total["outside"] / replies if replies else None
            metrics[f"{prefix}replies_per_stream"] = replies / total["streams"]
    return metrics
