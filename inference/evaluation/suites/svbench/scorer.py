"""SVBench: a judge's figures of single answers, of whole chains, and of what hangs together over a stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge, JudgeRequest
from inference.evaluation.judge.replies import whole_number, without_scale
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.suites.suite import Pairs
from inference.evaluation.suites.svbench.prompts import CRITERIA, JUDGE_CHAIN, JUDGE_SINGLE

NAME = "svbench"
MOST = 10


def score(pairs: Pairs, judge: Judge | None) -> list[Item]:
    """One item for each answer, each chain and each stream with linkages; without a judge there is none."""
    if judge is None:
        return []
    asked: list[tuple[Scenario, str, str, JudgeRequest[dict[str, int]], dict[str, Any]]] = []
    for trace, scenario in pairs:
        if trace.mode == "offline":
            asked += _single(trace, scenario)
            asked += _chains(trace, scenario)
            asked += _stream(trace, scenario)
    verdicts = judge.ask([request for *_, request, _ in asked])
    found = []
    for (scenario, task, name, _, details), verdict in zip(asked, verdicts, strict=True):
        values: dict[str, float] = {}
        for criterion, figure in verdict.items():
            if figure >= 0:  # -1: it does not apply
                values |= {criterion: float(figure), f"{criterion}.asked": 1.0}
        details = {**details, "verdict": verdict, "cluster": scenario.video or scenario.id}
        found.append(
            Item(suite=NAME, scenario_id=scenario.id, item=name, task=task, mode="offline", values=values, details=details)
        )
    return found


Asked = list[tuple[Scenario, str, str, JudgeRequest[dict[str, int]], dict[str, Any]]]


def _single(trace: Trace, scenario: Scenario) -> Asked:
    found: Asked = []
    for number, (question, reply) in enumerate(zip(scenario.questions, trace.answers, strict=True)):
        parts = {"question": question.meta.get("question", question.text), "truth": question.answer, "reply": reply}
        what = f"scenario {scenario.id} question {number}"
        request = JudgeRequest(messages=[{"role": "user", "content": JUDGE_SINGLE.format(**parts)}], read=read_single, what=what)
        found.append((scenario, "single", f"q{number}", request, parts))
    return found


def _chains(trace: Trace, scenario: Scenario) -> Asked:
    scenes: dict[int, list[int]] = {}
    for number, question in enumerate(scenario.questions):
        scenes.setdefault(int(question.meta.get("scene", 0)), []).append(number)
    return [
        (
            scenario,
            "chain",
            f"chain{scene}",
            _dialogue(trace, scenario, [(numbers, "")], f"chain {scene}"),
            {"questions": numbers},
        )
        for scene, numbers in scenes.items()
    ]


def _stream(trace: Trace, scenario: Scenario) -> Asked:
    """Linked questions along the video; of none where nothing is linked."""
    path = scenario.meta.get("path", [])
    if not path:
        return []
    groups = [([*link["before"], *link["after"]], str(link["relation"])) for link in path]
    return [(scenario, "streaming", "stream", _dialogue(trace, scenario, groups, "the stream"), {"path": path})]


def _dialogue(
    trace: Trace, scenario: Scenario, groups: Sequence[tuple[Sequence[int], str]], what: str
) -> JudgeRequest[dict[str, int]]:
    lines = []
    for numbers, relation in groups:
        lines += [f"How the next questions hang together: {relation}"] if relation else []
        for number in numbers:
            question = scenario.questions[number]
            asked = question.meta.get("question", question.text)
            lines += [f"Question: {asked}", f"True answer: {question.answer}", f"Answer: {trace.answers[number]}", ""]
    criteria = "\n".join(f"{name}: {about}" for name, about in CRITERIA.items())
    text = JUDGE_CHAIN.format(criteria=criteria, dialogue="\n".join(lines).strip())
    return JudgeRequest(messages=[{"role": "user", "content": text}], read=read_criteria, what=f"scenario {scenario.id} {what}")


def read_single(reply: str) -> dict[str, int]:
    """The only number, a whole one from 0 to 10, as `accuracy`.

    Raises:
        ValueError: there is none, or several.
    """
    return {"accuracy": whole_number(reply, 0, MOST)}


def read_criteria(reply: str) -> dict[str, int]:
    """The figure of each criterion; -1 of temporal understanding where it does not apply.

    Raises:
        ValueError: one is missing, no whole number, or out of range.
    """
    figures = {}
    text = without_scale(reply)
    for name in CRITERIA:
        found = re.search(rf"\b{name}\b(?:\s*\([^()\d]*\))?[^\w\n-]*(-?\d+(?:\.\d+)?)", text)
        if found is None:
            raise ValueError(f"the reply {reply[:60]!r} has no figure of {name}")
        figures[name] = whole_number(found[1], -1 if name == "TU" else 0, MOST)
    return figures


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means by setting and criterion; see the package."""
    sums: dict[str, float] = {}
    for item in items:
        for name, value in item.values.items():
            key = f"{item.task}.{name}"
            sums[key] = sums.get(key, 0.0) + value
    return {key: value / sums[f"{key}.asked"] for key, value in sums.items() if not key.endswith(".asked")}
