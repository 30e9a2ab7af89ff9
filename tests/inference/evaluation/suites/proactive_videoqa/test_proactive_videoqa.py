"""ProactiveVideoQA: the area under the judged score worked out by hand, and the way from the release to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.judge.cache import ReplyCache
from inference.evaluation.judge.endpoint import Endpoint
from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.judge.open import OpenJudge
from inference.evaluation.schema import PromptEvent, Scenario, Span, Trace, TraceEvent
from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.proactive_videoqa import SUITE
from inference.evaluation.suites.proactive_videoqa.pauc import pauc, without_late_losses
from inference.evaluation.suites.proactive_videoqa.scorer import read_repeats, read_verdict, word_f1
from inference.evaluation.suites.suite import ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip
from tests.inference.evaluation.judge.server import says, serving

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
        if text.startswith("Said so far:"):
            before, now = text.removeprefix("Said so far:\n").split("\nSays now: ")
            return "Yes." if set(now.lower().split()) <= set(before.lower().split()) else "no"
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
    # By the judge the same three say nothing new; reward 3 * 0.5375 - 3 * 3/5 - 2 * 1/5.
    assert metrics["repetition_judged"] == 3 / 5 and metrics["reward"] == pytest.approx(3 * 0.5375 - 1.8 - 0.4)
    assert [request.messages[1]["content"].rsplit(": ", 1)[1] for request in judge.asked] == [
        "ball",
        "ball Ball",
        "ball Ball red",
        "red",  # does it say anything new? Of the others words alone tell.
    ]
    assert judge.asked[2].what == "scenario WEB/1 span 0 at 8 s"


def test_without_a_judge_only_replies_are_counted() -> None:
    metrics = SUITE.aggregate(SUITE.score([_stream([])], None))
    assert metrics["replies_per_stream"] == 0 and metrics["repetition"] is None and "pauc" not in metrics
    assert metrics["pauc_words"] == 0.25 and metrics["answered"] == 0.0 and "reward" not in metrics


def test_words_stand_in_for_a_judge() -> None:
    metrics = SUITE.aggregate(SUITE.score([_stream([(4.0, "A red cat"), (21.0, "Dog!")])], None))
    # First span: 1 of 3 and of 2 words in common, F1 2/5, at 2 s of 10, halved: 1 * 0.5 + 9 * 0.8 = 7.7 of 20. Second: all of it
    # at 1 s: 0.5 * 0.5 + 9.5 * 2 = 19.25 of 20.
    assert metrics["pauc_words"] == pytest.approx((7.7 / 20 + 19.25 / 20) / 2)
    assert word_f1("a a b", "a b b") == pytest.approx(2 / 3) and word_f1("", "a") == 0.0


def test_the_judge_over_http_and_its_replies_replayed_give_the_same(tmp_path: Path) -> None:
    words = _Words()
    pair = _stream([(4.0, "ball"), (6.0, "Ball"), (8.0, "red"), (15.0, "a cat")])
    with serving(lambda body: (200, says(words._verdict(body["messages"][1]["content"])))) as server:
        asked = OpenJudge("m", ReplyCache(tmp_path / "replies.jsonl"), Endpoint(url=server.url, model="m"))
        items = SUITE.score([pair], asked)
    assert asked.asked == 5 and items == SUITE.score([pair], words)  # three of the first span, two of the stream
    assert SUITE.score([pair], OpenJudge("m", ReplyCache(tmp_path / "replies.jsonl"), None)) == items


def test_a_reworded_reply_is_found_by_the_judge_alone() -> None:
    metrics = SUITE.aggregate(SUITE.score([_stream([(4.0, "red ball"), (6.0, "ball red")])], _Words()))
    assert metrics["repetition"] == 0.0 and metrics["repetition_judged"] == 0.5
    # Spans: all at 2 s, 0.5 + 9 * 2 = 18.5 of 20; nothing, 0.25. Reward: 3 * 0.5875 - 3 / 2.
    assert metrics["reward"] == pytest.approx(3 * (18.5 / 20 + 0.25) / 2 - 1.5)


@given(st.lists(st.sampled_from([13.0, 14.5, 16.0, 18.0]), unique=True, max_size=3))
def test_replies_outside_of_all_spans_change_no_area_and_are_counted(times: list[float]) -> None:
    said = [(4.0, "ball"), (21.0, "dog")]
    base = SUITE.aggregate(SUITE.score([_stream(said)], _Words()))
    more = SUITE.aggregate(SUITE.score([_stream(sorted(said + [(t, f"noise{t:g}") for t in times]))], _Words()))
    assert all(more[name] == base[name] for name in ("pauc", "pauc_0", "pauc_1", "pauc_words", "answered"))
    assert more["out_of_span"] == pytest.approx(len(times) / (2 + len(times)))


@given(st.floats(0.0, 10.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.sampled_from([2.0, 4.0]))
def test_a_right_reply_is_never_worse_sooner(t: float, part: float, omega: float, most: float) -> None:
    wrong = (5.0, 0.0)
    late, soon = (
        pauc([wrong, (5 + t / 2, most)], 10.0, omega, most=most),
        pauc([wrong, (5 + t / 2 * part, most)], 10.0, omega, most=most),
    )
    assert 0.0 <= late <= soon + 1e-12 <= 1.0 + 1e-9


def test_other_scales_by_hand() -> None:
    # Of 1 to 5: 0.5 until 1 s (2 s halved), then 3: 0.5 + 9 * 3 = 27.5 of 40. Without a reply the start's share.
    assert pauc([(2.0, 3.0)], 10.0, most=4.0) == pytest.approx(27.5 / 40)
    assert pauc([(2.0, 3.0)], 10.0, start_score=0.0, most=4.0) == pytest.approx(27 / 40)
    assert pauc([], 10.0, start_score=1.0, most=4.0) == 0.25


def test_verdicts() -> None:
    assert [read_verdict(reply) for reply in ("3", " 2 because", "1.")] == [3, 2, 1]
    for wrong in ("", "good", "12", "score 3"):
        with pytest.raises(ValueError, match="begins with none of 1, 2 and 3"):
            read_verdict(wrong)
    assert read_repeats("Yes, it does") and not read_repeats("no")
    with pytest.raises(ValueError, match="neither yes nor no"):
        read_repeats("maybe")


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
