"""Captions of frames: what is sent, and timelines of what comes back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.generator.backends.chat import ChatRequest, MalformedAnswer, Refused
from data_pipeline.generator.backends.cuts import find_cuts
from data_pipeline.generator.backends.vision import SCHEMA, VisionOptions, caption_video, windows
from model.errors import InputError
from tests.data_pipeline.helpers import grey_levels, make_video


def segment(first: int, last: int, text: str, level: str = "event", **more: Any) -> dict[str, Any]:
    values = {"first": first, "last": last, "known": first, "level": level, "text": text}
    return {**values, "subject": "", "value": "", "change": "", "salience": 0.5, **more}


class Answers:
    """Says the same of every window, or what was given for each."""

    identity = "test"

    def __init__(self, *answers: list[dict[str, Any]] | Exception) -> None:
        self.answers = answers
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> dict[str, Any]:
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return {"segments": answer}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(make_video(grey_levels(20, step=7), rate=2, width=640, height=360))
    return path


def test_windows_of_frames_become_one_timeline(video: Path) -> None:
    state = {"level": "state", "subject": "colour:sky"}
    backend = Answers(
        [segment(0, 2, "it is dark", value="black", **state), segment(3, 3, "a light goes on.", change="state", known=3)],
        [segment(4, 7, "it is dark", value="black", **state), segment(5, 6, "a man waves", "action", known=6)],
        [segment(8, 9, "it is bright", value="white", **state)],
    )
    options = VisionOptions(frames_per_call=4, longest_side=64)
    timeline = caption_video(video, backend, options, source="mine", license="CC0")
    assert timeline.id == "clip" and timeline.duration == 10 and (timeline.source, timeline.license) == ("mine", "CC0")
    assert [(s.begin, s.end, s.evident, s.text) for s in timeline.segments] == [
        (0.0, 3.0, 0.0, "it is dark"),
        (3.0, 4.0, 3.0, "a light goes on"),
        (4.0, 8.0, 4.0, "it is dark"),
        (5.0, 7.0, 6.0, "a man waves"),
        (8.0, 10.0, 8.0, "it is bright"),
    ]
    assert len(backend.requests) == 3 and [len(r.images) for r in backend.requests] == [4, 4, 2]
    assert "frame 4: 4 s" in backend.requests[1].text and "a light goes on" in backend.requests[1].text
    assert Image.open(io.BytesIO(backend.requests[0].images[0])).size == (64, 36)
    assert backend.requests[0].schema is SCHEMA


def test_what_goes_on_is_one_segment_and_states_do_not_overlap(video: Path) -> None:
    place = {"level": "state", "subject": "place:man"}
    backend = Answers(
        [segment(0, 4, "the man is left", value="left", **place), segment(2, 4, "a man walks", "action")],
        [
            segment(5, 6, "the man is left", value="left", **place),
            segment(6, 9, "the man is right", value="right", **place),
            segment(5, 9, "a man walks", "action"),
        ],
    )
    timeline = caption_video(video, backend, VisionOptions(frames_per_call=5))
    assert [(s.begin, s.end, s.text) for s in timeline.segments] == [
        (0.0, 6.0, "the man is left"),
        (2.0, 10.0, "a man walks"),
        (6.0, 10.0, "the man is right"),
    ]


def test_what_two_windows_name_of_the_frames_that_both_have_is_one_segment(video: Path) -> None:
    place = {"level": "state", "subject": "place:man"}
    backend = Answers(
        [segment(0, 5, "the man is left", value="left", **place), segment(4, 5, "a man waves", change="action")],
        [
            segment(4, 4, "the man is off", value="off", **place),  # the window before has seen that frame too
            segment(5, 6, "the man is left", value="left", **place),
            segment(7, 9, "the man is right", value="right", **place),
            segment(4, 7, "a man waves", change="action"),
            segment(9, 9, "a man waves", change="action"),
        ],
    )
    timeline = caption_video(video, backend, VisionOptions(frames_per_call=6, overlap=2))
    assert [len(r.images) for r in backend.requests] == [6, 6]
    assert [(s.begin, s.end, s.text) for s in timeline.segments] == [
        (0.0, 4.0, "the man is left"),
        (4.0, 5.0, "the man is off"),
        (4.0, 8.0, "a man waves"),
        (5.0, 7.0, "the man is left"),
        (7.0, 10.0, "the man is right"),
        (9.0, 10.0, "a man waves"),
    ]


@pytest.mark.parametrize("name", ["towers_green.mp4", "rabbit.mp4"])
def test_clips_of_one_shot_have_no_cut(name: str) -> None:
    assert find_cuts(Path("data_pipeline/assets/media") / name, VisionOptions().cut_threshold) == []


def test_no_call_and_no_segment_crosses_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(make_video([40] * 36 + [150] * 44, rate=8))  # 10 s with a cut at 4.5 s
    assert find_cuts(path, 0.15) == [4.5] and find_cuts(path, 0.9) == []
    backend = Answers([segment(0, 4, "it is dark")], [segment(5, 9, "it is dark")])
    timeline = caption_video(path, backend)
    assert [(s.begin, s.end) for s in timeline.segments] == [(0.0, 4.5), (5.0, 10.0)]
    assert [len(r.images) for r in backend.requests] == [5, 5] and "a new scene begins" in backend.requests[1].text
    whole = caption_video(path, Answers([segment(0, 9, "it is dark")]), VisionOptions(cut_threshold=0.0))
    assert [(s.begin, s.end) for s in whole.segments] == [(0.0, 10.0)]


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 7), st.lists(st.floats(0.0, 70.0), max_size=4).map(sorted))
def test_windows_show_every_frame_and_none_behind_a_cut(count: int, most: int, overlap: int, cuts: list[float]) -> None:
    times = [float(i) for i in range(count)]
    found = windows(times, float(count), cuts, VisionOptions(frames_per_call=most, overlap=min(overlap, most - 1)))
    assert sorted({t for window in found for t in window.times}) == times
    for window in found:
        assert len(window.times) <= most and window.times[0] == window.first and window.times[-1] < window.end
        assert not any(window.times[0] < cut <= window.times[-1] for cut in cuts)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([segment(0, 99, "x")], "within 0..9"),
        ([segment(5, 4, "x")], "within 0..9"),
        ([segment(0, 1, "x", known=-1)], "within 0..9"),
        ([segment(0, 1, " ")], "lacks a text"),
        ([segment(0, 1, "x", "state")], "lacks a text, or a state its subject"),
        ([], "says nothing"),
        (MalformedAnswer("it is no JSON"), "no captions of seconds 0 to 9: it is no JSON"),
        (Refused("the model declines"), "the model declines"),
    ],
)
def test_captions_that_cannot_be_used_name_the_video(video: Path, answer: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        caption_video(video, Answers(answer))
    assert "clip.mp4" in str(caught.value)


def test_options_are_checked() -> None:
    for values, message in (
        ({"overlap": 16}, "overlap is 16"),
        ({"cut_threshold": 2.0}, "cut_threshold is 2"),
        ({"language": "fr"}, "captions can be written in en, zh"),
        ({"fps": 0.0}, "fps is 0"),
    ):
        with pytest.raises(InputError, match=message):
            VisionOptions(**values)
