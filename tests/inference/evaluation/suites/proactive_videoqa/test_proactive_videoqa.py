"""ProactiveVideoQA: the area under the judged score worked out by hand, and the way from the release to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.schema import PromptEvent, Scenario, Span, Trace, TraceEvent
from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.proactive_videoqa import SUITE
from inference.evaluation.suites.proactive_videoqa.pauc import pauc, without_late_losses
from inference.evaluation.suites.proactive_videoqa.scorer import read_verdict
from inference.evaluation.suites.suite import ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip

GOLDEN: list[tuple[list[tuple[float, float]], float, float, float]] = [
    # Before 2 s 0.5, until 6 s 1, then 2; times halved: 1 * 0.5 + 2 * 1 + 7 * 2 = 16.5 of 10 * 2.
    ([(2.0, 1.0), (6.0, 2.0)], 10.0, 0.5, 16.5 / 20),
    # As they are: 2 * 0.5 + 4 * 1 + 4 * 2 = 13 of 20.
    ([(6.0, 2.0), (2.0, 1.0)], 10.0, 0.0, 13 / 20),
    # At once: 10 * 2 of 20.
    ([(2.0, 1.0), (6.0, 2.0)], 10.0, 1.0, 1.0),
    # A wrong reply is worse than none: 0 * 0.5 + 10 * 0 of 20.
    ([(0.0, 0.0)], 10.0, 0.5, 0.0),
    # None: 0.5 of 2.
    ([], 10.0, 0.5, 0.25),
    ([(0.0, 2.0)], 0.0, 0.5, 0.0),
]
"""Replies, seconds of the span, omega, area. `_area_under_line_ratio` with `_stat_metric`, as VLMEvalKit's
vlmeval/dataset/proactive_videoqa.py repeats them from the benchmark's code, gave the same six numbers."""


@pytest.mark.parametrize(("points", "seconds", "omega", "expected"), GOLDEN)
def test_area_by_hand(points: list[tuple[float, float]], seconds: float, omega: float, expected: float) -> None:
    assert pauc(points, seconds, omega) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from([0.0, 1.0, 2.0])), max_size=5), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_area_is_a_share_and_sooner_is_never_worse(points: list[tuple[float, float]], omega: float) -> None:
    found = pauc(points, 10.0, omega)
    assert 0.0 <= found <= 1.0
    if points and all(score == 2.0 for _, score in points):
        assert pauc([(t / 2, score) for t, score in points], 10.0, omega) >= found - 1e-9


def test_what_is_said_behind_the_evidence_does_no_harm() -> None:
    # 8 s lies behind the evidence's end at 6 s and scores less than the reply at 5 s; the one at 9 s does not.
    assert without_late_losses([(5.0, 2.0), (8.0, 1.0), (9.0, 2.0)], 6.0) == [(5.0, 2.0), (9.0, 2.0)]
    assert without_late_losses([(8.0, 0.0)], 6.0) == [(8.0, 0.0)]


class _Words:
    """Verdict by the number of the truth's words that were said: all 3, some 2, none 1."""

    name = "words"

    def __init__(self) -> None:
        self.asked: list[JudgeRequest[Any]] = []

    def ask(self, requests: Sequence[JudgeRequest[Any]]) -> list[Any]:
        self.asked += requests
        return [request.read(self._verdict(request.messages[1]["content"])) for request in requests]

    def _verdict(self, text: str) -> str:
        truth, said = text.split("Right answer: ")[1].split("\nThe system said: ")
        hits = sum(word in said.split() for word in truth.split())
        return "3" if hits == len(truth.split()) else "2." if hits else " 1"


def _stream(said: list[tuple[float, str]]) -> tuple[Trace, Scenario]:
    spans = [Span(a=2.0, b=12.0, text="red ball", meta={"related_end": 12.0}), Span(a=20.0, b=30.0, text="dog")]
    scenario = Scenario(
        id="WEB/1",
        video="v.mp4",
        fps=1.0,
        num_frames=31,
        prompts=[PromptEvent(t=0.0, text="What happens?")],
        spans=spans,
        meta={"task": "WEB", "question": "What happens?"},
    )
    events = []
    for t, text in said:
        events += [TraceEvent(t=t, kind="token", frame=int(t), text=text), TraceEvent(t=t + 0.5, kind="silence")]
    return Trace(scenario_id="WEB/1", mode="push", events=events), scenario


def test_streams_by_hand() -> None:
    judge = _Words()
    pair = _stream([(4.0, "ball"), (6.0, "Ball"), (8.0, "red"), (8.5, "red"), (15.0, "ball")])
    metrics = SUITE.aggregate(SUITE.score([pair], judge))
    # First span: at 2 s "ball" 1, at 4 s "ball Ball" 1, at 6 s with "red" all, 2; "red" again is not asked. Halved times 1, 2, 3:
    # 1 * 0.5 + 2 * 1 + 7 * 2 = 16.5 of 20. Second span: nothing, 0.25.
    assert metrics["pauc"] == pytest.approx((16.5 / 20 + 0.25) / 2) == metrics["WEB.pauc"]
    # omega 0: 2 * 0.5 + 4 * 1 + 4 * 2 = 13 of 20.
    assert metrics["pauc_0"] == pytest.approx((13 / 20 + 0.25) / 2) and metrics["answered"] == 0.5
    # "Ball", the second "red" and the last "ball" repeat; the one at 15 s lies in no span.
    assert metrics["repetition"] == 3 / 5 and metrics["out_of_span"] == 1 / 5 and metrics["replies_per_stream"] == 5
    assert [request.messages[1]["content"].rsplit(": ", 1)[1] for request in judge.asked] == [
        "ball",
        "ball Ball",
        "ball Ball red",
    ]
    assert judge.asked[2].what == "scenario WEB/1 span 0 at 8 s"


def test_without_a_judge_only_replies_are_counted() -> None:
    metrics = SUITE.aggregate(SUITE.score([_stream([])], None))
    assert metrics["replies_per_stream"] == 0 and metrics["repetition"] is None and "pauc" not in metrics


def test_verdicts() -> None:
    assert [read_verdict(reply) for reply in ("3", " 2 because", "1.")] == [3, 2, 1]
    for wrong in ("", "good", "12", "score 3"):
        with pytest.raises(ValueError, match="begins with none of 1, 2 and 3"):
            read_verdict(wrong)


ENTRY: dict[str, Any] = {
    "video": "a.mp4",
    "question_id": 7,
    "duration": 12.0,
    "conversation": [
        {"role": "user", "content": "What happens?", "time": 0},
        {"role": "user", "content": "(music)", "time": 2.5},
    ],
    "answer": [
        {"content": "a ball", "related_timespan": [1, 3], "reply_timespan": [1, 5]},
        {"content": "a dog", "related_timespan": [40, 42], "reply_timespan": [40, 45]},
    ],
}


def _load(root: Path, entry: dict[str, Any]) -> Any:
    (root / "TV").mkdir(exist_ok=True)
    (root / "TV" / "anno.json").write_text(json.dumps([entry]))
    assert SUITE.load is not None
    return SUITE.load(root, ImportOptions(videos=root))


def test_the_release_becomes_streams(tmp_path: Path) -> None:
    write_clip(tmp_path / "TV" / "videos" / "a.mp4", [20] * 12)
    found = _load(tmp_path, ENTRY)
    (scenario,) = found.scenarios
    assert scenario.id == "TV/7" and scenario.video == "TV/videos/a.mp4" and scenario.num_frames == 12
    assert scenario.prompts == [PromptEvent(t=0.0, text="What happens?"), PromptEvent(t=2.5, text="(music)")]
    assert [(span.a, span.b, span.text, span.meta) for span in scenario.spans] == [(1.0, 5.0, "a ball", {"related_end": 3.0})]
    assert "1 of 2 answers lie behind the end" in found.manifest.notes[0]
    save_scenarios(tmp_path / "s.jsonl", found.scenarios)
    assert load_scenarios(tmp_path / "s.jsonl") == found.scenarios


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversation": []}, "conversation is empty"),
        ({"answer": []}, "answer is empty"),
        ({"answer": [{"content": "x", "reply_timespan": [1]}]}, "must be a beginning and an end"),
        ({"answer": [{"content": "x", "reply_timespan": [3, 1]}]}, "its end must not lie before"),
        ({"video": "none.mp4"}, "none of the 1 videos was found"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_clip(tmp_path / "TV" / "videos" / "a.mp4", [20] * 2)
    with pytest.raises(InputError, match=message):
        _load(tmp_path, {**ENTRY, **change})
