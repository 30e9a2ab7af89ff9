"""OmniMMI: when a stream called out, whether it kept silent, and what a judge makes of answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge, JudgeRequest
from inference.evaluation.judge.replies import whole_number
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.utterances import read_speech
from inference.evaluation.suites.omnimmi.prompts import JUDGE_SYSTEM, JUDGE_USER
from inference.evaluation.suites.suite import Pairs

NAME = "omnimmi"
Verdict = tuple[bool, int]


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each scenario; those with questions need a judge."""
    found: list[Item] = []
    asked: list[tuple[Trace, Scenario]] = []
    for trace, scenario in pairs:
        if trace.mode == "push" and scenario.meta.get("task") == "PA":
            found.append(_alert(trace, scenario))
        elif trace.mode == "push" and scenario.meta.get("task") == "PT":
            found.append(_silence(trace, scenario))
        elif trace.mode == "offline":
            asked.append((trace, scenario))
    if judge is not None:
        requests = [request for trace, scenario in asked for request in _requests(trace, scenario)]
        verdicts = iter(judge.ask(requests))
        found += [_dialogue(trace, scenario, [next(verdicts) for _ in scenario.questions]) for trace, scenario in asked]
    return found


def _requests(trace: Trace, scenario: Scenario) -> list[JudgeRequest[Verdict]]:
    found = []
    for number, (question, reply) in enumerate(zip(scenario.questions, trace.answers, strict=True)):
        text = JUDGE_USER.format(question=question.meta.get("question", question.text), truth=question.answer, reply=reply)
        messages = [{"role": "system", "content": JUDGE_SYSTEM}, {"role": "user", "content": text}]
        found.append(JudgeRequest(messages=messages, read=read_verdict, what=f"scenario {scenario.id} question {number}"))
    return found


def read_verdict(reply: str) -> Verdict:
    """(whether it is right, how much of it from 0 to 5).

    Raises:
        ValueError: one of the two is missing.
    """
    words = {word.lower() for word in re.findall(r"\b(yes|no)\b", reply, re.IGNORECASE)}
    if len(words) != 1:
        raise ValueError(f"the reply {reply[:40]!r} has no yes or no, or both")
    return words.pop() == "yes", whole_number(reply, 0, 5)


def alert_values(times: Sequence[float], begin: float, end: float) -> dict[str, float]:
    """Accuracy, precision and IoU of the moments at which something was called out; all 0 where nothing was."""
    if not times:
        return {"accuracy": 0.0, "precision": 0.0, "iou": 0.0}
    hits = sum(begin <= t <= end for t in times)
    first, last = times[0], times[-1]
    whole = max(last, end) - min(first, begin)
    iou = max(0.0, min(last, end) - max(first, begin)) / whole if whole > 0 else 0.0
    return {"accuracy": float(begin <= first <= end), "precision": hits / len(times), "iou": iou}


def _alert(trace: Trace, scenario: Scenario) -> Item:
    # As in the official run, what is said within the first second is no alert.
    times = [one.t for one in read_speech(trace).utterances if int(one.t) != 0]
    span = scenario.spans[0]
    details = {"question": scenario.prompts[0].text, "span": [span.a, span.b], "times": times}
    return _item(scenario, "push", {"asked": 1.0, **alert_values(times, span.a, span.b)}, details)


def _silence(trace: Trace, scenario: Scenario) -> Item:
    said = [one.text for one in read_speech(trace).utterances if one.t >= scenario.prompts[0].t and one.text.strip()]
    # A run that ended early has shown nothing.
    right = float(not said and not trace.error)
    return _item(scenario, "push", {"asked": 1.0, "accuracy": right}, {"question": scenario.prompts[0].text, "said": said})


def _dialogue(trace: Trace, scenario: Scenario, verdicts: Sequence[Verdict]) -> Item:
    """All questions of one video: right if all are; each turn alone, and together with all before it."""
    values = {
        "asked": 1.0,
        "accuracy": float(all(right for right, _ in verdicts)),
        "score": sum(number for _, number in verdicts) / len(verdicts),
    }
    so_far = True
    for place, (right, _) in enumerate(verdicts):
        so_far = so_far and right
        values |= {f"turn{place}": 1.0, f"turn{place}.right": float(right), f"turn{place}.so_far": float(so_far)}
    questions = [
        [q.meta.get("question", q.text), q.answer, reply] for q, reply in zip(scenario.questions, trace.answers, strict=True)
    ]
    return _item(scenario, "offline", values, {"questions": questions, "verdicts": [list(verdict) for verdict in verdicts]})


def _item(scenario: Scenario, mode: str, values: dict[str, float], details: dict[str, Any]) -> Item:
    details = {**details, "cluster": scenario.video or scenario.id}
    task = str(scenario.meta.get("task", ""))
    return Item(suite=NAME, scenario_id=scenario.id, item=mode, task=task, mode=mode, values=values, details=details)


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means by task; see the package."""
    sums: dict[str, dict[str, float]] = {}
    for item in items:
        total = sums.setdefault(item.task, {})
        for name, value in item.values.items():
            total[name] = total.get(name, 0.0) + value
    metrics: Metrics = {}
    for task, total in sums.items():
        for name in ("accuracy", "precision", "iou", "score"):
            if name in total:
                metrics[f"{task}.{name}"] = total[name] / total["asked"]
        if task in ("SG", "MD"):
            for place in range(sum(re.fullmatch(r"turn\d+", name) is not None for name in total)):
                for part in ("right", "so_far"):
                    metrics[f"{task}.turn{place}.{part}"] = total[f"turn{place}.{part}"] / total[f"turn{place}"]
    judged = [metrics[f"{task}.accuracy"] for task in ("SG", "AP", "MD", "SI") if f"{task}.accuracy" in metrics]
    if judged:
        metrics["mean_of_judged"] = sum(value or 0.0 for value in judged) / len(judged)
    return metrics
