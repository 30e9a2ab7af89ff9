"""E.T. Bench: options that were chosen, and spans that were found, official and strict."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Question, Scenario
from inference.evaluation.suites.etbench.importer import GROUPS
from inference.evaluation.suites.etbench.spans import (
    THRESHOLDS,
    Span,
    detection_f1,
    official_spans,
    overlap,
    seconds_f1,
    strict_spans,
)
from inference.evaluation.suites.parsing import LETTERS, strict_choice
from inference.evaluation.suites.suite import Pairs

NAME = "etbench"
PARSERS = ("official", "strict")
_FIGURE = {"referring": "accuracy", "grounding": "f1", "complex": "recall"}


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each question."""
    found = []
    for trace, scenario in pairs:
        if trace.mode == "offline":
            for number, (question, reply) in enumerate(zip(scenario.questions, trace.answers, strict=True)):
                found.append(_item(scenario, number, question, reply))
    return found


def _item(scenario: Scenario, number: int, question: Question, reply: str) -> Item:
    values = {"asked": 1.0}
    for parser in PARSERS:
        values |= {f"{name}_{parser}": value for name, value in _values(question, reply, parser).items()}
    details = {"question": question.text, "truth": question.answer, "reply": reply, "source": question.meta["source"]}
    details["cluster"] = scenario.video or scenario.id
    return Item(
        suite=NAME,
        scenario_id=scenario.id,
        item=f"q{number}",
        task=question.kind,
        mode="offline",
        values=values,
        details=details,
    )


def _values(question: Question, reply: str, parser: str) -> dict[str, float]:
    """`figure`, the task's own, and whether the reply was `read`."""
    task, strict = question.kind, parser == "strict"
    if task in GROUPS["referring"]:
        letter = strict_choice(reply, question.choices) if strict else official_choice(reply, len(question.choices), task)
        return {"figure": float(letter == question.answer), "read": float(letter is not None)}
    truth: list[Span] = [(begin, end) for begin, end in question.meta["truth"]]
    if task == "vhd":
        moment = _moment(reply, strict)
        hit = moment is not None and any(begin <= moment <= end for begin, end in truth)
        return {"figure": float(hit), "read": float(moment is not None)}
    found = strict_spans(reply) if strict else official_spans(reply)
    if not found:
        return {"figure": 0.0, "read": 0.0}
    if task == "tal":
        return {"figure": sum(detection_f1(found, truth, least) for least in THRESHOLDS) / len(THRESHOLDS), "read": 1.0}
    if task == "evs":
        return {"figure": seconds_f1(found, truth), "read": 1.0}
    if strict and len(found) > 1:  # which of them is meant?
        return {"figure": 0.0, "read": 0.0, "iou": 0.0}
    iou = max(overlap(found[0], one) for one in truth)
    if task == "gvq":
        letter = (
            strict_choice(_before(reply), question.choices) if strict else official_choice(reply, len(question.choices), task)
        )
        right = float(letter == question.answer)
        return {"figure": right * _hits(iou), "read": 1.0, "right": right}
    return {"figure": _hits(iou), "read": 1.0, "iou": iou}


def _hits(iou: float) -> float:
    """Share of the thresholds that are reached."""
    return sum(iou >= least for least in THRESHOLDS) / len(THRESHOLDS)


def _before(reply: str) -> str:
    """What a reply says before its first number: the option, where a span follows."""
    return re.split(r"\d", reply, maxsplit=1)[0]


def official_choice(reply: str, count: int, task: str) -> str | None:
    """The letter that the official reader takes (`rvq_eval`, `gvq_eval` of compute_metrics.py), None where it finds none.

    The first letter in brackets (not for gvq); else the first character, behind "best option:" and an opening bracket, where it
    stands alone or before a point, comma, blank or closing bracket. Where it finds none the official code takes the option of the
    most similar wording, by a sentence encoder; here such a reply is wrong.
    """
    known = LETTERS[:count]
    bracket = re.search(r"\(([A-Za-z])\)", reply) if task != "gvq" else None
    if bracket and bracket[1].upper() in known:
        return bracket[1].upper()
    text = reply[12:] if reply.lower().startswith("best option:") else reply
    text = text.lstrip().lstrip("(").lstrip()
    if text and (len(text) == 1 or text[1] in ".,) ") and text[0].upper() in known:
        return text[0].upper()
    return None


def _moment(reply: str, strict: bool) -> float | None:
    """Seconds: official the first number, strict the only one."""
    numbers = re.findall(r"[-+]?\d*\.\d+|[-+]?\d+", reply)
    return float(numbers[0]) if numbers and (not strict or len(numbers) == 1) else None


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means over samples of a source, over sources of a task, over tasks of a group; see the package."""
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for item in items:
        total = sums.setdefault((item.task, str(item.details["source"])), {})
        for name, value in item.values.items():
            total[name] = total.get(name, 0.0) + value
    metrics: Metrics = {}
    for parser in PARSERS:
        for group, tasks in GROUPS.items():
            figures = []
            for task in tasks:
                sources = [total for (name, _), total in sums.items() if name == task]
                if sources:
                    figures.append(sum(_of_source(task, total, parser) for total in sources) / len(sources))
                    metrics[f"{task}.{_FIGURE[group]}_{parser}"] = figures[-1]
                    asked = sum(total["asked"] for total in sources)
                    metrics[f"{task}.read_{parser}"] = sum(total[f"read_{parser}"] for total in sources) / asked
            if figures:
                metrics[f"{group}.{_FIGURE[group]}_{parser}"] = sum(figures) / len(figures)
    return metrics


def _of_source(task: str, total: dict[str, float], parser: str) -> float:
    """Mean of one source; the official figure of evs leaves out what could not be read."""
    count = total["read_official"] if task == "evs" and parser == "official" else total["asked"]
    return total[f"figure_{parser}"] / count if count else 0.0
