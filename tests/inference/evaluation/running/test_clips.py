"""Which frames a question is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.running.clips import clip_frames, poll_moments
from inference.evaluation.running.settings import RunSettings, modes_of
from inference.evaluation.schema import Poll, PromptEvent, Question, Scenario, Span
from model.errors import InputError


def _scenario(**fields: object) -> Scenario:
    return Scenario(**({"id": "s", "video": "v.mp4", "fps": 2.0, "num_frames": 20} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("until", "since", "settings", "expected"),
    [
        (None, None, {}, range(20)),
        (3.0, None, {}, range(7)),  # frames at 0, 0.5, … 3.0
        (3.4, None, {}, range(7)),
        (3.0, 1.2, {}, range(3, 7)),  # the first at or after 1.2 s is the one at 1.5
        (3.0, None, {"context_seconds": 1.0}, range(4, 7)),  # [2, 3]
        (3.0, 2.5, {"context_seconds": 10.0}, range(5, 7)),  # the later of both beginnings
        (0.0, None, {"context_seconds": 5.0}, range(1)),
        (100.0, None, {}, range(20)),
        (None, None, {"max_frames": 4}, [0, 6, 13, 19]),  # 0, 6.33, 12.67, 19 of 0…19
        (None, None, {"max_frames": 1}, [19]),
        (3.0, 3.4, {}, range(6, 7)),  # nothing between: the frame that is shown then
    ],
)
def test_frames(until: float | None, since: float | None, settings: dict[str, float], expected: range | list[int]) -> None:
    assert clip_frames(_scenario(), until, since, RunSettings(**settings)) == expected  # type: ignore[arg-type]


@given(
    st.integers(1, 300),
    st.sampled_from([0.5, 1.0, 2.0, 3.0, 29.97]),
    st.none() | st.floats(0, 200),
    st.none() | st.floats(0, 200),
    st.none() | st.floats(0.1, 100),
    st.none() | st.integers(1, 50),
)
def test_a_clip_never_shows_the_future_and_always_its_end(
    count: int, fps: float, until: float | None, since: float | None, context: float | None, most: int | None
) -> None:
    scenario = _scenario(fps=fps, num_frames=count)
    frames = list(clip_frames(scenario, until, since, RunSettings(context_seconds=context, max_frames=most)))
    assert frames == sorted(set(frames)) and 0 <= frames[0] and frames[-1] < count
    assert most is None or len(frames) <= most
    whole = clip_frames(scenario, until, None, RunSettings())
    assert frames[-1] == whole[-1] and set(frames) <= set(whole)
    if until is not None:
        assert frames[-1] == 0 or frames[-1] / fps <= until + 1e-5
    if most is None and context is not None and len(frames) > 1:
        assert frames[0] / fps >= (frames[-1] / fps if until is None else until) - context - 1e-5


@pytest.mark.parametrize(
    ("begin", "end", "step", "expected"),
    [
        (1.0, 3.0, 1.0, [1.0, 2.0, 3.0]),
        (1.0, 3.5, 1.0, [1.0, 2.0, 3.0]),
        (2.0, 2.0, 5.0, [2.0]),
        (0.0, 0.3, 0.1, [0.0, 0.1, 0.2, 0.3]),
    ],
)
def test_moments_of_a_poll(begin: float, end: float, step: float, expected: list[float]) -> None:
    assert poll_moments(begin, end, step) == pytest.approx(expected)


def test_modes_follow_what_a_scenario_holds() -> None:
    question = Question(text="?", answer="x", kind="free")
    poll = Poll(text="now?", begin=1.0, end=2.0)
    assert modes_of(_scenario(), RunSettings()) == ["push"]
    assert modes_of(_scenario(questions=[question]), RunSettings()) == ["offline"]
    assert modes_of(_scenario(questions=[question], polls=[poll], prompts=[PromptEvent(t=0.0, text="x")]), RunSettings()) == [
        "push",
        "poll",
        "offline",
    ]
    spoken = _scenario(spans=[Span(a=1.0, b=1.0, text="x")])
    assert modes_of(spoken, RunSettings()) == ["push"] and modes_of(spoken, RunSettings(modes=("teacher", "offline"))) == [
        "teacher"
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_frames": 0}, "max_frames is 0; it must be at least 1"),
        ({"modes": ("shout",)}, "modes holds 'shout'; use some of push, poll, offline, teacher"),
        ({"context_seconds": 0.0}, "context_seconds is 0.0; it must be above 0"),
        ({"clock": "sun"}, "clock is 'sun'; use virtual or wall"),
        ({"clock": "wall", "latency_profile": "x"}, "a latency profile is for the virtual clock"),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunSettings(**settings)  # type: ignore[arg-type]
