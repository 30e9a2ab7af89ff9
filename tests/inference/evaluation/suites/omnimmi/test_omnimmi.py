"""OmniMMI: scores worked out by hand, and the way from the release to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.schema import PromptEvent, Question, Scenario, Span, Trace, TraceEvent
from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.omnimmi import SUITE
from inference.evaluation.suites.omnimmi.scorer import alert_values, read_verdict
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip

ALERTS: list[tuple[list[float], tuple[float, float], tuple[float, float, float]]] = [
    # First in the span; 2 of 3 in it; from 5 to 12 against 4 to 10: 5 of 8.
    ([5.0, 6.0, 12.0], (4.0, 10.0), (1.0, 2 / 3, 5 / 8)),
    # First too early; 1 of 2; from 2 to 5: 1 of 8.
    ([2.0, 5.0], (4.0, 10.0), (0.0, 1 / 2, 1 / 8)),
    # One alert has no extent.
    ([7.0], (4.0, 10.0), (1.0, 1.0, 0.0)),
    ([], (4.0, 10.0), (0.0, 0.0, 0.0)),
]
"""Alerts, true span, accuracy, precision and IoU. The branch `pa` of evaluations/evaluate.py (github.com/OmniMMI/OmniMMI, commit
ef79b6e7), run on these four, printed 0.5, 0.5416666666666666 and 0.1875."""


@pytest.mark.parametrize(("times", "span", "expected"), ALERTS)
def test_alerts_by_hand(times: list[float], span: tuple[float, float], expected: tuple[float, float, float]) -> None:
    assert tuple(alert_values(times, *span).values()) == pytest.approx(expected)


_times = st.lists(st.integers(0, 80).map(lambda quarter: quarter / 4), max_size=6).map(sorted)


@given(_times, st.integers(0, 10), st.integers(1, 10))
def test_what_always_holds_of_alerts(times: list[float], begin: int, length: int) -> None:
    span = (float(begin), float(begin + length))
    values = alert_values(times, *span)
    assert all(0.0 <= value <= 1.0 for value in values.values())
    if times and values["accuracy"] == 1.0:
        assert values["precision"] >= 1 / len(times)
    if times and values["precision"] == 1.0:
        assert values["accuracy"] == 1.0 and values["iou"] == pytest.approx((times[-1] - times[0]) / length)
    # All moved alike, nothing changes; an alert behind the span leaves the first one's verdict and takes from the precision.
    assert alert_values([t + 8 for t in times], span[0] + 8, span[1] + 8) == pytest.approx(values)
    later = alert_values([*times, 90.0], *span)
    if times:
        assert later["accuracy"] == values["accuracy"] and later["precision"] <= values["precision"]
    assert alert_values(list(span), *span) == {"accuracy": 1.0, "precision": 1.0, "iou": 1.0}


def _speech(said: Sequence[tuple[float, str]]) -> list[TraceEvent]:
    return [
        event
        for t, text in said
        for event in (TraceEvent(t=t, kind="token", frame=int(t), text=text), TraceEvent(t=t + 0.1, kind="silence"))
    ]


def _alerted(name: str, times: Sequence[float], span: tuple[float, float]) -> tuple[Trace, Scenario]:
    scenario = Scenario(
        id=name,
        video=f"{name}.mp4",
        fps=1.0,
        num_frames=20,
        prompts=[PromptEvent(t=0.0, text="?")],
        spans=[Span(a=span[0], b=span[1])],
        meta={"task": "PA"},
    )
    return Trace(scenario_id=name, mode="push", events=_speech([(t, "now") for t in times])), scenario


def test_means_over_streams() -> None:
    pairs = [_alerted(str(i), times, span) for i, (times, span, _) in enumerate(ALERTS)]
    metrics = SUITE.aggregate(SUITE.score(pairs, None))
    assert metrics["PA.accuracy"] == pytest.approx(2 / 4) and metrics["PA.precision"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 4)
    assert metrics["PA.iou"] == pytest.approx((5 / 8 + 1 / 8) / 4)
    # A greeting within the first second is no alert.
    (item,) = SUITE.score([_alerted("g", [0.4, 5.0], (4.0, 10.0))], None)
    assert item.values["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("said", "error", "right"),
    [([], "", 1), ([(2.0, "I see.")], "", 1), ([(6.0, "Yes?")], "", 0), ([(6.0, " ")], "", 1), ([], "damaged", 0)],
)
def test_silence(said: list[tuple[float, str]], error: str, right: int) -> None:
    scenario = Scenario(
        id="t", video="v.mp4", fps=1.0, num_frames=10, prompts=[PromptEvent(t=5.0, text="A\nHi")], meta={"task": "PT"}
    )
    metrics = SUITE.aggregate(
        SUITE.score([(Trace(scenario_id="t", mode="push", events=_speech(said), error=error), scenario)], None)
    )
    assert metrics == {"PT.accuracy": right}


class _Exact:
    """Right where the reply is the truth; the figure is the number of letters that both begin with, at most 5."""

    name = "exact"

    def ask(self, requests: Sequence[JudgeRequest[Any]]) -> list[Any]:
        return [request.read(self._verdict(request.messages[1]["content"])) for request in requests]

    def _verdict(self, text: str) -> str:
        truth, said = text.split("Right answer: ")[1].split("\nThe system answered: ")
        alike = next((i for i, (a, b) in enumerate(zip(truth, said, strict=False)) if a != b), min(len(truth), len(said)))
        return f"{'Yes' if truth == said else 'no'}, {min(5, alike)}"


def _asked(name: str, task: str, turns: Sequence[tuple[str, str]]) -> tuple[Trace, Scenario]:
    questions = [Question(text="?", answer=truth, kind=task) for truth, _ in turns]
    scenario = Scenario(id=name, video="v.mp4", fps=1.0, num_frames=9, questions=questions, meta={"task": task})
    return Trace(scenario_id=name, mode="offline", answers=[reply for _, reply in turns]), scenario


def test_dialogues_by_hand() -> None:
    pairs = [
        _asked("a", "MD", [("eggs", "eggs"), ("pan", "pot"), ("salt", "salt")]),
        _asked("b", "MD", [("milk", "milk"), ("cup", "cup")]),
        _asked("c", "AP", [("stir", "pour")]),
    ]
    metrics = SUITE.aggregate(SUITE.score(pairs, _Exact()))
    # All right in b alone. Figures of a: 4, 1, 4; of b: 4, 3: means 3 and 3.5.
    assert metrics["MD.accuracy"] == 1 / 2 and metrics["MD.score"] == pytest.approx((3 + 3.5) / 2)
    assert [metrics[f"MD.turn{k}.right"] for k in range(3)] == [1.0, 1 / 2, 1.0]
    # a goes wrong at its second turn, so the third does not count.
    assert [metrics[f"MD.turn{k}.so_far"] for k in range(3)] == [1.0, 1 / 2, 0.0]
    assert metrics["AP.accuracy"] == 0.0 and metrics["AP.score"] == 0.0 and metrics["mean_of_judged"] == 1 / 4
    assert SUITE.score(pairs, None) == []


def test_verdicts() -> None:
    assert read_verdict("yes 5") == (True, 5) and read_verdict("{'pred': 'no', 'score': 0}") == (False, 0)
    for wrong in ("yes", "5", "yes 7", ""):
        with pytest.raises(ValueError, match=r"from 0 to 5 is wanted|has no yes or no"):
            read_verdict(wrong)


ENTRIES: dict[str, Any] = {
    "action_prediction.json": {"video": "v.mp4", "question": "What next?", "answer": "stir", "vocab": ["stir", "pour"]},
    "speaker_identification.json": {"video": "v.mp4", "question": "Who?", "answer": "Ann", "timestamp": 3.5},
    "multiturn_dependency_reasoning.json": {
        "video": "v.mp4",
        "qa": [
            {"question": "What?", "answer": "eggs", "timestamp": "0.0 -- 3.7"},
            {"question": "Where is ##ANSWER##?", "answer": "pan", "timestamp": "4.0 -- 6.0"},
        ],
    },
    "proactive_alerting.json": {"video": "v.mp4", "question": "Tell me when.", "answer": [4, 6.5]},
    "proactive_turntaking.json": {"video": "v.mp4", "conversation": [{"Ann": "Hi Bob"}, {"Bob": "Hi"}]},
}


def _load(root: Path, entries: dict[str, Any], **options: Any) -> Imported:
    for name, entry in entries.items():
        (root / name).write_text(json.dumps([entry]))
    assert SUITE.load is not None
    return SUITE.load(root, ImportOptions(videos=root, **options))


def test_the_release_becomes_clips_and_streams(tmp_path: Path) -> None:
    write_clip(tmp_path / "videos" / "v.mp4", [20] * 10)
    found = _load(tmp_path, ENTRIES)
    ap, si, md, pa, pt = found.scenarios
    assert "stir, pour" in ap.questions[0].text and ap.questions[0].t == 9.0 and ap.num_frames == 10
    assert si.questions[0].t == 3.5 and si.num_frames == 4
    assert [(q.text, q.t) for q in md.questions] == [("What?", 3.0), ("Where is eggs?", 6.0)] and md.num_frames == 7
    assert (pa.spans[0].a, pa.spans[0].b, pa.prompts[0].t, pa.num_frames) == (4.0, 6.5, 0.0, 10)
    assert pt.prompts == [PromptEvent(t=5.0, text="Ann\nHi Bob\nBob\nHi")] and pt.begin == 0.0
    assert len(found.manifest.notes) == 2 and "##ANSWER## is the true answer" in found.manifest.notes[0]
    save_scenarios(tmp_path / "s.jsonl", found.scenarios)
    assert load_scenarios(tmp_path / "s.jsonl") == found.scenarios
    long = _load(tmp_path, {"proactive_alerting.json": {**ENTRIES["proactive_alerting.json"], "answer": [40, 50]}})
    assert len(long.scenarios) == 4 and "behind the end of its video" in long.manifest.notes[-1]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("proactive_alerting.json", {"answer": [3]}, "must be a beginning and an end"),
        ("proactive_alerting.json", {"answer": [3, 1]}, "its end must not lie before"),
        ("multiturn_dependency_reasoning.json", {"qa": []}, "qa is empty"),
        ("speaker_identification.json", {"timestamp": None}, "time is None"),
        ("action_prediction.json", {"video": "none.mp4"}, "none of the 1 videos was found"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    write_clip(tmp_path / "v.mp4", [20] * 10)
    with pytest.raises(InputError, match=message):
        _load(tmp_path, {name: {**ENTRIES[name], **change}})
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="nor a folder of them"):
        _load(tmp_path, {})
