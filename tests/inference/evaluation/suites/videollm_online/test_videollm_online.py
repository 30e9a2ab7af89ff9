"""VideoLLM-online's metrics on turns counted by hand, and the importer on made-up narrations.

The cases of `frame_difference` and `fluency` follow the arithmetic of `stream_evaluate` (models/modeling_live.py,
showlab/videollm-online at 4ea416c). A transcript of it, with random logits in place of the model's passes, gave the same four
metrics as the scorer at both thresholds on 4,000 random streams, those of a single text apart (see the suite).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.schema import FrameDecision, Scenario, Span, TeacherTurn, Trace
from inference.evaluation.suites.suite import ImportOptions
from inference.evaluation.suites.videollm_online import SUITE
from inference.evaluation.suites.videollm_online.scorer import fluency, frame_difference
from model.errors import InputError
from tests.inference.clips import write_clip


def _frames(text: str) -> list[FrameDecision]:
    """s: surely silent, m: silent, at 0.6; x: speaks."""
    kinds = {"s": (0.9, True), "m": (0.6, True), "x": (0.1, False)}
    return [FrameDecision(silence=kinds[c][0], silent=kinds[c][1]) for c in text]


def _turn(frames: str, later: str = "", correct: str = "11", span: int = 0) -> TeacherTurn:
    right = [c == "1" for c in correct]
    return TeacherTurn(
        span=span, frames=_frames(frames), later=_frames(later), correct=right, losses=[0.0 if r else 1.0 for r in right]
    )


@pytest.mark.parametrize(
    ("frames", "later", "threshold", "difference"),
    [
        ("sssx", "", 0.0, 0),  # on time
        ("sxsx", "", 0.0, 2),  # 4 - 1 - 1
        ("xsss", "ss", 0.0, 3),
        ("ssss", "sx", 0.0, -2),  # at the second frame behind
        ("ssss", "ss", 0.0, -2),  # never, and two frames were there
        ("ssss", "", 0.0, 0),  # the last turn
        ("smss", "", 0.725, 2),  # 0.6 is below the threshold
        ("smss", "", 0.0, 0),
        ("ssss", "sm", 0.725, -2),
    ],
)
def test_frames_early_and_late(frames: str, later: str, threshold: float, difference: int) -> None:
    assert frame_difference(_turn(frames, later), threshold) == difference


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        (_turn("sssx", correct="1101"), (4 + 2) / 8),  # on time: frames and the tokens before the first wrong one
        (_turn("sxss", correct="1111"), (4 - 2) / 8),
        (_turn("ssss", "ss", correct="1111"), (4 - 1) / 8),
        (_turn("x", correct="0"), 1 / 2),
    ],
)
def test_fluency(turn: TeacherTurn, expected: float) -> None:
    assert fluency(turn, 0.0) == pytest.approx(expected)


def test_means_over_turns_then_over_streams() -> None:
    one = Scenario(
        id="one",
        video="v",
        fps=2.0,
        num_frames=9,
        spans=[Span(a=0, b=0, text="a", meta={"timed": False}), Span(a=2, b=2, text="b")],
    )
    two = Scenario(id="two", video="v", fps=2.0, num_frames=9, spans=[Span(a=0, b=0, text="a")])
    traces = [
        Trace(scenario_id="one", mode="teacher", turns=[_turn("x", correct="01"), _turn("sxss", correct="11", span=1)]),
        Trace(scenario_id="two", mode="teacher", turns=[_turn("sx", correct="10")]),
    ]
    items = SUITE.score(list(zip(traces, [one, two], strict=True)), None)
    found = SUITE.aggregate(items)
    # Perplexities e^0.5 and e^0, then e^0.5; correctness 0 and 1, then 0.5.
    assert found["lm_ppl"] == pytest.approx(((math.exp(0.5) + 1) / 2 + math.exp(0.5)) / 2)
    assert found["lm_correctness"] == pytest.approx((0.5 + 0.5) / 2)
    # The first turn of the first stream is not timed; the second is 2 frames of half a second early.
    assert found["time_diff"] == pytest.approx((1.0 + 0.0) / 2)
    assert found["fluency"] == pytest.approx((2 / 6 + 3 / 4) / 2)
    assert SUITE.aggregate([])[SUITE.main] is None


@given(st.text("smx", min_size=1, max_size=9), st.text("smx", max_size=8), st.text("01", min_size=1, max_size=6), st.floats(0, 1))
def test_bounds(frames: str, later: str, correct: str, threshold: float) -> None:
    turn = _turn(frames, later[: len(frames) - 1], correct)
    assert -len(turn.later) <= frame_difference(turn, threshold) <= len(frames) - 1
    assert 0 <= fluency(turn, threshold) <= 1
    # A higher threshold never makes it speak later.
    assert frame_difference(turn, 1.0) >= frame_difference(turn, threshold)


NARRATIONS: dict[str, Any] = {
    "uid": {
        "a1": [
            {"time": 1.2, "text": "C opens a door."},
            {"time": 2.1, "text": "C looks around."},
            {"time": 2.4, "text": "C sits down."},  # ceils to the same half second: the later one counts
            {"time": 3.0, "text": "C sits down."},  # said already
            {"time": 3.6, "text": "C stands up."},
            {"time": 99.0, "text": "C leaves."},  # behind the end: at the last frame
        ]
    },
    "gone": {"a1": [{"time": 1.0, "text": "C waves."}]},
}


def test_import(tmp_path: Path) -> None:
    write_clip(tmp_path / "videos" / "uid.mp4", [10 * n for n in range(12)], fps=2)
    (tmp_path / "narration_stream_val.json").write_text(json.dumps(NARRATIONS))
    assert SUITE.load is not None
    imported = SUITE.load(tmp_path / "narration_stream_val.json", ImportOptions(videos=tmp_path / "videos", fps=2.0))
    (scenario,) = imported.scenarios
    assert scenario.begin == 1.5 and scenario.num_frames == 9 and scenario.suite == "videollm_online"
    assert [(span.a, span.text) for span in scenario.spans] == [
        (0.0, "C opens a door."),
        (1.0, "C sits down."),
        (2.5, "C stands up."),
        (4.0, "C leaves."),
    ]
    assert scenario.spans[0].meta == {"timed": False} and imported.manifest.missing_videos == ["gone"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no narrations by video"),
        ({"uid": []}, "must be an object of annotations"),
        ({"uid": {"a": [{"text": "x"}]}}, "entry 0"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    write_clip(tmp_path / "uid.mp4", [10, 20])
    (tmp_path / "n.json").write_text(json.dumps(content))
    assert SUITE.load is not None
    with pytest.raises(InputError, match=message):
        SUITE.load(tmp_path / "n.json", ImportOptions(videos=tmp_path))
