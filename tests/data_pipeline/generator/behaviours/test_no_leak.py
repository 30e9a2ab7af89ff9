"""What is said at a frame follows from the past: any other future leaves it as it is."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.generator.behaviours.policy import TASKS, matches
from data_pipeline.generator.plan import Draft, Plan, Question
from data_pipeline.generator.stages.write import answer, write_dialogue
from data_pipeline.generator.templates import TemplateAuthor
from data_pipeline.realtime.dialogue import BEHAVIOURS
from data_pipeline.timeline.timeline import Timeline, check_timeline
from tests.data_pipeline.generator.randoms import EVENTS, VALUES, timelines, with_other_future

FRAMES = tuple(i * 0.5 for i in range(25))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any requests at any times between two frames."""
    slots = sorted(draw(st.sets(st.integers(0, 22), min_size=1, max_size=3)))
    questions = [
        Question(
            t=slot * 0.5 + 0.25,
            text=draw(st.sampled_from(("What is it, 0?", "What is it, 1?"))),
            behaviour="direct",
            task=draw(st.sampled_from(sorted(TASKS))),
            subject=draw(st.sampled_from(sorted(VALUES))),
            target=draw(st.sampled_from((*EVENTS, "appears", "ball leaves"))),
        )
        for slot in slots
    ]
    return Plan(questions=tuple(questions), behaviours=("direct",))


@settings(max_examples=150, deadline=None)
@given(timelines(), plans(), st.integers(0, 24), st.data())
def test_another_future_changes_nothing(timeline: Timeline, plan: Plan, frame: int, data: st.DataObject) -> None:
    t = FRAMES[frame]
    other = with_other_future(timeline, t, data.draw(timelines(begin=t)))
    assert other.until(t) == timeline.until(t)
    author = TemplateAuthor()
    ours, theirs = answer(timeline, author, plan, FRAMES), answer(other, author, plan, FRAMES)
    assert [u for u in ours.utterances if u.t <= t] == [u for u in theirs.utterances if u.t <= t]
    # And neither does a video that stops there.
    stopped = answer(timeline.until(t), author, plan, FRAMES[: frame + 1])
    assert list(stopped.utterances) == [u for u in ours.utterances if u.t <= t]


@settings(max_examples=150, deadline=None)
@given(timelines(), st.sampled_from(BEHAVIOURS), st.integers(0, 9), st.sampled_from(("terse", "plain")))
def test_evidence_has_been_seen_and_answers_follow_questions(timeline: Timeline, behaviour: str, seed: int, persona: str) -> None:
    check_timeline(timeline)
    draft = write_dialogue(
        timeline, TemplateAuthor(), FRAMES, 2.0, {behaviour: 1}, random.Random(seed), "en", persona, changes=()
    )
    if not isinstance(draft, Draft):
        assert draft.stage == "plan" and behaviour in draft.reason
        return
    for utterance in draft.utterances:
        assert utterance.t in FRAMES and utterance.evidence[0] <= utterance.evidence[1] <= utterance.t
        assert utterance.answers is not None and draft.users[utterance.answers].t < utterance.t
        later = draft.users[utterance.answers + 1 :]
        assert not later or utterance.t < later[0].t, "an older request was served although a newer one stood"
    for turn in draft.users:
        assert (turn.t * 2) % 1 == 0.5 and turn.t < FRAMES[-1]


@settings(max_examples=100, deadline=None)
@given(timelines(), st.sampled_from(BEHAVIOURS), st.integers(0, 9))
def test_what_was_planned_comes_true(timeline: Timeline, behaviour: str, seed: int) -> None:
    draft = write_dialogue(timeline, TemplateAuthor(), FRAMES, 2.0, {behaviour: 1}, random.Random(seed), "en", changes=())
    if not isinstance(draft, Draft):
        return
    asked = draft.plan.questions
    if behaviour in ("correction", "count", "not_yet"):
        wanted = {"correction": "correction", "count": "count", "not_yet": "answer"}[behaviour]
        assert wanted in [u.kind for u in draft.utterances]
    for index, question in enumerate(asked):
        replies = [u for u in draft.utterances if u.answers == index]
        if question.expected == "now":
            assert replies and replies[0].t - question.t == 0.25
        if question.expected == "never":
            assert not replies
        if question.expected == "later" and index + 1 == len(asked):
            assert replies


def test_targets_are_words_in_order() -> None:
    assert matches("ball appears", "red ball appears") and matches("red ball appears", "red ball appears")
    assert not matches("appears ball", "red ball appears") and not matches("ball", "balloon rises")
