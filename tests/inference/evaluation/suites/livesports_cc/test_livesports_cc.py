"""LiveSports-3K-CC: wins worked out by hand, and the way from the release to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.judge.judge import JudgeRequest
from inference.evaluation.schema import Scenario, Span, Trace, TraceEvent
from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.livesports_cc import SUITE
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip


class _Words:
    """For the commentary with more words of the human one; for the first where both have as many."""

    name = "words"

    def __init__(self) -> None:
        self.asked: list[JudgeRequest[Any]] = []

    def ask(self, requests: Sequence[JudgeRequest[Any]]) -> list[Any]:
        self.asked += requests
        return [request.read(self._verdict(request.messages[0]["content"])) for request in requests]

    def _verdict(self, text: str) -> str:
        a, rest = text.split("Commentary A:\n")[1].split("\n\nCommentary B:\n")
        b, truth = rest.split("\n\nHuman commentary:\n")
        hits = [len(set(one.split()) & set(truth.split())) for one in (a, b)]
        return "A" if hits[0] >= hits[1] else "B."


def _pair(name: str, said: Sequence[str], other: str) -> tuple[Trace, Scenario]:
    events = []
    for t, text in enumerate(said):
        events += [TraceEvent(t=t, kind="token", frame=t, text=text), TraceEvent(t=t + 0.5, kind="silence")]
    scenario = Scenario(
        id=name,
        video="v.mp4",
        fps=1.0,
        num_frames=5,
        spans=[Span(a=0.0, b=4.0, text="he scores a goal")],
        meta={"other": other, "other_name": "GPT-4o"},
    )
    return Trace(scenario_id=name, mode="push", events=events), scenario


def test_by_hand() -> None:
    """As llm_judge.py of github.com/showlab/livecc counts: winners in both orders that are ours, of two for each event."""
    judge = _Words()
    pairs = [
        _pair("better", [" he", "scores "], "a man"),  # 2 words against 1: both orders
        _pair("first", ["he"], "goal"),  # 1 against 1: whoever stands first
        _pair("lost", ["nothing"], "he scores"),
        _pair("silent", [], "he"),
    ]
    items = SUITE.score(pairs, judge)
    assert [item.values["official"] for item in items] == [1.0, 0.5, 0.0, 0.0]
    metrics = SUITE.aggregate(items)
    # (2 + 1 + 0 + 0) wins of 4 * 2; three of four agree, the silent one without being asked.
    assert metrics["win_rate_official"] == 3 / 8 == metrics["win_rate"] and metrics["orders_agree"] == 3 / 4
    assert metrics["spoke"] == 3 / 4 and len(judge.asked) == 6 and items[0].details["reply"] == "he scores"
    assert SUITE.score(pairs, None) == [] and SUITE.aggregate([]) == {}


EVENT: dict[str, Any] = {
    "video": "clips/a.mp4",
    "video_id": "a",
    "event_id": 2,
    "begin": 1.0,
    "end": 4.0,
    "event_title": "Final",
    "preasr_text": "here we go",
    "event_asr_text": "he scores",
}


def _load(root: Path, events: list[dict[str, Any]], captions: list[dict[str, Any]]) -> Imported:
    (root / "cc.json").write_text(json.dumps(events))
    (root / "GPT-4o.jsonl").write_text("".join(json.dumps(one) + "\n" for one in captions))
    assert SUITE.load is not None
    return SUITE.load(root, ImportOptions(videos=root))


CAPTION = {"video_id": "a", "event_id": 2, "begin": 1.0, "end": 4.0, "pred": "a man runs"}


def test_events_become_streams(tmp_path: Path) -> None:
    write_clip(tmp_path / "videos" / "a.mp4", [20] * 6)
    late = {**EVENT, "event_id": 3, "begin": 50.0, "end": 60.0}
    found = _load(tmp_path, [EVENT, late], [CAPTION, {**CAPTION, "event_id": 3}])
    (scenario,) = found.scenarios
    assert (scenario.id, scenario.begin, scenario.num_frames) == ("a_2", 1.0, 4)  # 1, 2, 3 and 4 s
    assert scenario.meta == {"other": "a man runs", "other_name": "GPT-4o"} and scenario.spans[0].text == "he scores"
    assert scenario.prompts[0].text.endswith("Its title: Final. What has been said so far: here we go")
    assert "behind the end of its video" in found.manifest.notes[0]
    save_scenarios(tmp_path / "s.jsonl", found.scenarios)
    assert load_scenarios(tmp_path / "s.jsonl") == found.scenarios


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", [20] * 6)
    with pytest.raises(InputError, match=r"GPT-4o\.jsonl has no caption of event a_2"):
        _load(tmp_path, [EVENT], [{**CAPTION, "event_id": 9}])
    with pytest.raises(InputError, match=r"has 2 files of events .* and 0 of captions"):
        _load(tmp_path, [EVENT], [EVENT])
    with pytest.raises(InputError, match="time is 'x'"):
        _load(tmp_path, [{**EVENT, "begin": "x"}], [CAPTION])
