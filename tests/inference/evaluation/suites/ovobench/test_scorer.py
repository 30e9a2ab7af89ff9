"""Scores of OVO-Bench, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from inference.evaluation.schema import PromptEvent, Question, Scenario, Trace, TraceEvent
from inference.evaluation.suites.ovobench import SUITE

OPTIONS = ["red", "blue", "green"]

ANSWERS: list[tuple[str, str, str, int, int]] = [
    ("EPM", "B", "B", 1, 1),
    ("EPM", "B", "Between them", 1, 0),
    ("EPM", "A", "The answer is A or C", 1, 0),
    ("HLD", "C", "green", 0, 1),
    ("OCR", "B", "", 0, 0),
    ("REC", "2", "2 times", 1, 1),
    ("REC", "2", "two", 0, 1),
    ("REC", "12", "1 or 2", 1, 0),
    ("SSR", "No", "N", 1, 1),
    ("SSR", "Yes", "yes", 0, 1),
    ("SSR", "No", "Now it is", 1, 0),
    ("CRR", "Yes", "Yes.", 1, 1),
]
"""Task, truth, reply, and what official and strict readings give."""


def _clip() -> tuple[Trace, Scenario]:
    questions = [
        Question(text="?", answer=truth, kind=task, choices=OPTIONS if truth in "ABC" else []) for task, truth, *_ in ANSWERS
    ]
    scenario = Scenario(id="s", video="v.mp4", fps=1.0, num_frames=4, questions=questions, suite="ovobench")
    return Trace(scenario_id="s", mode="offline", answers=[reply for _, _, reply, *_ in ANSWERS]), scenario


def test_by_hand() -> None:
    """`OVOBenchOfflineScore` of utils/OVOBenchScore.py (github.com/JoeLeelyf/OVO-Bench, commit 19677d28), run on the same
    replies, printed EPM 100.00, HLD 0.00, OCR 0.00, REC 66.67, SSR 66.67, CRR 100.00; backward 50.00, realtime 0.00, forward
    77.78; total 55.56."""
    items = SUITE.score([_clip()], None)
    assert [(item.values["official"], item.values["strict"]) for item in items] == [(one[3], one[4]) for one in ANSWERS]
    metrics = SUITE.aggregate(items)
    assert metrics["EPM.accuracy_official"] == 1.0 and metrics["EPM.accuracy_strict"] == pytest.approx(1 / 3)
    assert metrics["REC.accuracy_official"] == pytest.approx(2 / 3) == metrics["SSR.accuracy_official"]
    assert metrics["backward.accuracy_official"] == pytest.approx((1 + 0) / 2)
    assert metrics["forward.accuracy_official"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)  # 0.7778
    # Mean of 0.5, 0 and 0.7778; mean of the six tasks 1, 0, 0, 2/3, 2/3, 1.
    assert metrics["total.accuracy_official"] == pytest.approx((0.5 + 0 + 7 / 9) / 3)
    assert metrics["total_of_tasks.accuracy_official"] == pytest.approx(10 / 18)  # 0.5556
    # strict: EPM 1/3, HLD 1; OCR 0; REC 2/3, SSR 2/3, CRR 1.
    assert metrics["total.accuracy_strict"] == pytest.approx((2 / 3 + 0 + 7 / 9) / 3)


def _stream(task: str, tests: list[list[Any]], said: list[tuple[float, str]], **meta: Any) -> tuple[Trace, Scenario]:
    events = []
    for t, text in said:
        events += [TraceEvent(t=t, kind="token", frame=int(t), text=text), TraceEvent(t=t + 0.1, kind="silence")]
    prompts = [PromptEvent(t=2.0 if task == "CRR" else 0.0, text="?")]
    scenario = Scenario(
        id=task, video="v.mp4", fps=1.0, num_frames=10, prompts=prompts, meta={"task": task, "tests": tests, **meta}
    )
    return Trace(scenario_id=task, mode="push", events=events), scenario


def _right(pair: tuple[Trace, Scenario]) -> list[float]:
    return [item.values["right"] for item in SUITE.score([pair], None) if "right" in item.values]


def test_counting_in_a_stream() -> None:
    tests = [[1.0, 0], [2.0, 1], [4.5, 1], [8.0, 2]]
    # at 1 s: silence is none; at 2 s "one"; at 4.5 s still; at 8 s "3" is not 2.
    assert _right(_stream("REC", tests, [(2.0, "one"), (6.0, "3")])) == [1, 1, 1, 0]
    assert _right(_stream("REC", tests, [])) == [1, 0, 0, 0]


def test_steps_in_a_stream() -> None:
    tests: list[list[Any]] = [[1.0, None], [3.0, None], [7.0, None]]
    steps = {"steps": ["boil water", "pour it"], "begins": [2.0, 6.0]}
    # before 2 s no step has begun; at 3 s A; from 6 s on B.
    assert _right(_stream("SSR", tests, [(2.5, "A"), (6.5, "pour it.")], **steps)) == [1, 1, 1]
    assert _right(_stream("SSR", tests, [(0.5, "A"), (6.5, "A. boil water")], **steps)) == [0, 1, 0]
    assert _right(_stream("SSR", tests, [], **steps)) == [1, 0, 0]


@pytest.mark.parametrize(
    ("said", "right", "near", "delay"),
    [
        ([(6.5, "Water.")], [1, 1, 1, 1], 1, 0.5),
        (
            [(1.0, "hello"), (4.0, "Tea?")],
            [1, 0, 1, 1],
            0,
            2.0,
        ),  # what was said before it was asked is no answer; 2 s is not near
        ([(8.0, "Water.")], [1, 1, 0, 1], 0, 2.0),
        ([], [1, 1, 0, 0], 0, None),
    ],
)
def test_waiting_for_evidence_in_a_stream(
    said: list[tuple[float, str]], right: list[int], near: int, delay: float | None
) -> None:
    pair = _stream("CRR", [[2.0, 0], [5.0, 0], [7.0, 1], [9.0, 1]], said, clue=6.0)
    assert _right(pair) == right
    metrics = SUITE.aggregate(SUITE.score([pair], None))
    assert metrics["CRR.push.accuracy"] == sum(right) / 4 == metrics["forward.push.accuracy"]
    assert metrics["CRR.push.near"] == near and metrics["CRR.push.delay"] == delay
    assert metrics["total.accuracy_official"] is None
