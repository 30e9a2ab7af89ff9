"""Answers of OVO-Bench's twelve tasks, official and strict, and its forward tasks as streams."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Question, Scenario, Trace
from inference.evaluation.scorers.utterances import Utterance, read_speech
from inference.evaluation.suites.ovobench.importer import GROUPS
from inference.evaluation.suites.parsing import LETTERS, strict_choice, strict_number, strict_yes_no
from inference.evaluation.suites.suite import Pairs

NAME = "ovobench"
NEAR = 2.0
"""Seconds below which the first word of a CRR stream is near its clue."""
_PARSERS = ("official", "strict")


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each question and, of streams, for each moment at which the benchmark would ask."""
    found: list[Item] = []
    for trace, scenario in pairs:
        if trace.mode == "offline":
            found += _answers(trace, scenario)
        elif trace.mode == "push" and "tests" in scenario.meta:
            found += _stream(trace, scenario)
    return found


def official(reply: str, question: Question) -> bool:
    """As `OVOBenchScore.py` has it: the letter, "Yes" or "No" occurs; all digits joined are the count."""
    if question.kind == "REC":
        return "".join(re.findall(r"\d+", reply)) == question.answer
    if question.kind in GROUPS["forward"]:
        return reply == question.answer[0] or question.answer in reply
    return question.answer in reply


def strict(reply: str, question: Question) -> bool:
    """One letter, one number, or yes or no as the first word (`parsing`)."""
    if question.kind == "REC":
        return strict_number(reply) == int(question.answer)
    if question.kind in GROUPS["forward"]:
        return strict_yes_no(reply) is (question.answer == "Yes")
    return strict_choice(reply, question.choices) == question.answer


def _answers(trace: Trace, scenario: Scenario) -> Iterator[Item]:
    for number, (question, reply) in enumerate(zip(scenario.questions, trace.answers, strict=True)):
        values = {"asked": 1.0, "official": float(official(reply, question)), "strict": float(strict(reply, question))}
        details = {"question": question.meta.get("question", question.text), "truth": question.answer, "reply": reply}
        yield _item(scenario, f"q{number}", question.kind, "offline", values, details | {"t": question.t})


def _stream(trace: Trace, scenario: Scenario) -> Iterator[Item]:
    task, asked_at = str(scenario.meta["task"]), scenario.prompts[0].t
    said = [one for one in read_speech(trace).utterances if one.t >= asked_at]
    right: Callable[[float, Any, Utterance | None], bool] = {"REC": _counts, "SSR": _names_step(scenario), "CRR": _answered}[task]
    for place, (t, truth) in enumerate(scenario.meta["tests"]):
        newest = next((one for one in reversed(said) if one.t <= t), None)
        values = {"asked": 1.0, "right": float(right(t, truth, newest))}
        details = {"question": scenario.prompts[0].text, "truth": truth, "reply": newest.text if newest else "", "t": t}
        yield _item(scenario, f"test{place}", task, "push", values, details)
    if task == "CRR":
        delay = said[0].t - float(scenario.meta["clue"]) if said else None
        values = {"streams": 1.0, "spoke": float(bool(said)), "near": float(delay is not None and abs(delay) < NEAR)}
        if delay is not None:
            values["delay"] = abs(delay)
        details = {"question": scenario.prompts[0].text, "reply": said[0].text if said else "", "delay": delay}
        yield _item(scenario, "stream", task, "push", values, details)


def _counts(t: float, truth: Any, newest: Utterance | None) -> bool:
    """The number last said is the count; who has said nothing has counted none."""
    return bool((0 if newest is None else strict_number(newest.text)) == truth)


def _answered(t: float, truth: Any, newest: Utterance | None) -> bool:
    """Something has been said by then, or nothing where it was too early."""
    return (newest is not None) == bool(truth)


def _names_step(scenario: Scenario) -> Callable[[float, Any, Utterance | None], bool]:
    """The step last named is the one that began last; before the first one nothing may have been said."""
    steps, begins = scenario.meta.get("steps", []), scenario.meta.get("begins", [])

    def right(t: float, truth: Any, newest: Utterance | None) -> bool:
        begun = [(begin, place) for place, begin in enumerate(begins) if begin <= t]
        if not begun or newest is None:
            return not begun and newest is None
        return strict_choice(newest.text, steps) == LETTERS[max(begun)[1]]

    return right


def _item(scenario: Scenario, name: str, task: str, mode: str, values: dict[str, float], details: dict[str, Any]) -> Item:
    details = {**details, "cluster": scenario.video or scenario.id}
    return Item(suite=NAME, scenario_id=scenario.id, item=name, task=task, mode=mode, values=values, details=details)


def aggregate(items: Sequence[Item]) -> Metrics:
    """Shares by task, means of tasks by group, mean of groups; see the package."""
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for item in items:
        total = sums.setdefault((item.mode, item.task), {})
        for name, value in item.values.items():
            total[name] = total.get(name, 0.0) + value
    metrics: Metrics = {}
    for parser in _PARSERS:
        shares = {task: total[parser] / total["asked"] for (mode, task), total in sums.items() if mode == "offline"}
        metrics |= {f"{task}.accuracy_{parser}": share for task, share in shares.items()}
        groups = {name: _mean([shares[task] for task in tasks if task in shares]) for name, tasks in GROUPS.items()}
        metrics |= {f"{name}.accuracy_{parser}": value for name, value in groups.items() if value is not None}
        metrics[f"total.accuracy_{parser}"] = _mean([value for value in groups.values() if value is not None])
        metrics[f"total_of_tasks.accuracy_{parser}"] = _mean(list(shares.values()))
    return metrics | _push_metrics({task: total for (mode, task), total in sums.items() if mode == "push"})


def _push_metrics(sums: dict[str, dict[str, float]]) -> Metrics:
    shares = {task: total["right"] / total["asked"] for task, total in sums.items() if total.get("asked")}
    metrics: Metrics = {f"{task}.push.accuracy": share for task, share in shares.items()}
    if shares:
        metrics["forward.push.accuracy"] = _mean(list(shares.values()))
    clues = sums.get("CRR", {})
    if clues.get("streams"):
        metrics["CRR.push.near"] = clues["near"] / clues["streams"]
        metrics["CRR.push.spoke"] = clues["spoke"] / clues["streams"]
        metrics["CRR.push.delay"] = clues["delay"] / clues["spoke"] if clues["spoke"] else None
    return metrics


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
