"""The world's items, put together, are the scores that all files have."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.evaluation.schema import PromptEvent, Question, Scenario, Span, Trace, TraceEvent
from inference.evaluation.scorers.summary import score as summary
from inference.evaluation.suites.world import SUITE

WORDS = ("red ball appears.", "it stops.", "two", "")
KINDS = ("event", "answer", "alert", "correction")


@st.composite
def streams(draw: st.DrawFn, name: str) -> tuple[Trace, Scenario]:
    frames = draw(st.integers(1, 8))
    times = st.integers(0, frames - 1)
    spans = []
    for _ in range(draw(st.integers(0, 4))):
        a = draw(times)
        spans.append(
            Span(a=a, b=draw(st.integers(a, frames)), text=draw(st.sampled_from(WORDS)), kind=draw(st.sampled_from(KINDS)))
        )
    prompts = [PromptEvent(t=draw(times), text="tell me") for _ in range(draw(st.integers(0, 2)))]
    behaviours = draw(st.lists(st.sampled_from(["narration", "delayed"]), unique=True))
    scenario = Scenario(
        id=name,
        video="v",
        fps=1.0,
        num_frames=frames,
        spans=spans,
        prompts=prompts,
        meta={"behaviours": behaviours} if behaviours else {},
    )
    events = []
    for frame in range(frames):
        for text in draw(st.lists(st.sampled_from(WORDS[:3]), max_size=2)):
            events.append(TraceEvent(t=frame + 0.1, kind="token", frame=frame, text=text))
        if draw(st.booleans()):
            events.append(TraceEvent(t=frame + 0.5, kind="silence", frame=frame))
    return Trace(scenario_id=name, mode="push", events=events), scenario


@st.composite
def questions(draw: st.DrawFn, name: str) -> tuple[Trace, Scenario]:
    asked = [
        Question(
            text="?", answer=draw(st.sampled_from(["red", "moves left"])), kind=draw(st.sampled_from(["colour", "direction"]))
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    answers = [draw(st.sampled_from(["red", "left", "Red.", ""])) for _ in asked]
    return Trace(scenario_id=name, mode="offline", answers=answers), Scenario(
        id=name, video="v", fps=1.0, num_frames=2, questions=asked
    )


def _flat(scores: dict[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {f"qa.{kind}": value for kind, value in scores["qa"].items()}
    for section in ("speak", "speak_within_one", "silence", "correction", "waiting"):
        found |= {f"{section}.{name}": value for name, value in scores.get(section, {}).items()}
    for prefix, section in (("behaviour", "by_behaviour"), ("kind", "by_kind")):
        for name, values in scores.get(section, {}).items():
            found |= {f"{prefix}.{name}.{key}": value for key, value in values.items()}
    return found


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_metrics_are_those_of_the_summary(data: st.DataObject) -> None:
    pairs = [data.draw(streams(f"s{n}")) for n in range(data.draw(st.integers(0, 3)))]
    pairs += [data.draw(questions(f"q{n}")) for n in range(data.draw(st.integers(0, 2)))]
    if not pairs:
        return
    items = SUITE.score(pairs, None)
    found = SUITE.aggregate(items)
    expected = _flat(summary([trace for trace, _ in pairs], [scenario for _, scenario in pairs]))
    for name, value in found.items():
        assert value == expected[name], name
    # What counts things, and is no metric, is all that the summary says beyond them.
    rest = {name.rsplit(".", 1)[-1] for name in set(expected) - set(found)}
    assert rest <= {"spans", "scenarios", "early"}
    assert SUITE.main in found or not any(trace.mode == "push" for trace, _ in pairs)


def test_items_say_what_was_said() -> None:
    scenario = Scenario(id="s", video="v", fps=1.0, num_frames=3, spans=[Span(a=1.0, b=1.0, text="it stops.")])
    events = [TraceEvent(t=1.0, kind="token", frame=1, text="It stops"), TraceEvent(t=1.2, kind="silence", frame=1)]
    stream, span = SUITE.score([(Trace(scenario_id="s", mode="push", events=events), scenario)], None)
    assert stream.details["said"] == [{"t": 1.0, "frame": 1, "text": "It stops"}]
    assert span.values == {"hit": 1.0, "right": 1.0} and span.details["reply"] == "It stops"
