"""Every behaviour on a video that is known by heart: what is said, to the frame, in both languages."""

from __future__ import annotations

import random

import pytest

from data_pipeline.generator.behaviours.ground import Ground
from data_pipeline.generator.behaviours.registry import PLANNERS, plan_behaviour
from data_pipeline.generator.plan import Draft, Plan, Question
from data_pipeline.generator.stages.write import answer, write_dialogue
from data_pipeline.generator.templates import TemplateAuthor
from data_pipeline.generator.templates.phrases import Phrases
from data_pipeline.realtime.dialogue import BEHAVIOURS
from data_pipeline.timeline.timeline import Segment, Timeline
from model.errors import InputError
from tests.data_pipeline.generator.samples import FRAMES, kitchen, state, world

Said = list[tuple[float, str, str]]


def ask(*asked: tuple[float, str, str, str], timeline: Timeline | None = None, language: str = "en") -> Draft:
    """The draft of hand-made requests (t, task, subject, target)."""
    questions = tuple(
        Question(t=t, text=f"{task} {subject} {target}", behaviour="direct", task=task, subject=subject, target=target)
        for t, task, subject, target in asked
    )
    plan = Plan(questions=questions, behaviours=("direct",), language=language)
    return answer(timeline or world(), TemplateAuthor(), plan, FRAMES)


def said(draft: Draft) -> Said:
    return [(u.t, u.text, u.kind) for u in draft.utterances]


CASES: list[tuple[str, list[tuple[float, str, str, str]], Said, list[str]]] = [
    (
        "narration",
        [(0.5, "narrate", "", "")],
        [
            (3, "red ball appears.", "narration"),
            (6, "blue flag appears.", "narration"),
            (9, "ball turns green.", "narration"),
            (12, "green ball leaves.", "narration"),
        ],
        ["红球出现。", "蓝旗出现。", "球变成绿色。", "绿球离开。"],
    ),
    ("direct", [(4.5, "ask", "colour:ball", "")], [(5, "red.", "answer")], ["红色。"]),
    ("direct, two things", [(7.5, "ask", "visible", "")], [(8, "red ball and blue flag.", "answer")], ["红球和蓝旗。"]),
    ("delayed", [(0.5, "ask", "colour:ball", "")], [(3, "red.", "answer")], ["红色。"]),
    ("next", [(3.5, "next", "", "")], [(6, "blue flag appears.", "answer")], ["蓝旗出现。"]),
    ("never", [(3.5, "ask", "colour:fence", "")], [], []),
    (
        "correction",
        [(4.5, "keep", "colour:ball", "")],
        [(5, "red.", "answer"), (9, "now green.", "correction")],
        ["红色。", "现在绿色。"],
    ),
    (
        "count",
        [(4.5, "count", "count", "")],
        [(5, "one object.", "count"), (6, "two objects.", "count"), (12, "one object.", "count")],
        ["一个物体。", "两个物体。", "一个物体。"],
    ),
    (
        "count of events",
        [(0.5, "count_events", "", "appears")],
        [(3, "one.", "count"), (6, "two.", "count")],
        ["一。", "二。"],
    ),
    (
        "alert",
        [(1.5, "alert", "", "appears")],
        [(3, "red ball appears.", "alert"), (6, "blue flag appears.", "alert")],
        ["红球出现。", "蓝旗出现。"],
    ),
    ("alert that never fires", [(7.5, "alert", "", "flag appears")], [], []),
    (
        "not yet",
        [(1.5, "yet", "", "flag appears")],
        [(2, "not yet.", "not_yet"), (6, "yes, blue flag appears.", "answer")],
        ["还没有。", "是的，蓝旗出现。"],
    ),
    ("already", [(7.5, "yet", "", "flag appears")], [(8, "yes, blue flag appears.", "answer")], ["是的，蓝旗出现。"]),
    ("memory of an event", [(7.5, "last", "", "")], [(8, "blue flag appears.", "answer")], ["蓝旗出现。"]),
    ("memory of nothing", [(0.5, "last", "", "")], [(1, "nothing.", "answer")], ["什么都没有。"]),
    ("memory of a state", [(12.5, "before", "visible", "")], [(13, "green ball and blue flag.", "answer")], ["绿球和蓝旗。"]),
    ("memory of what is gone", [(13.5, "before", "colour:ball", "")], [(14, "green.", "answer")], ["绿色。"]),
    (
        "retraction",
        [(3.5, "alert", "", "flag appears"), (5.5, "retract", "", "")],
        [],
        [],
    ),
    (
        "interruption",
        [(0.5, "narrate", "", ""), (6.5, "ask", "count", "")],
        [(3, "red ball appears.", "narration"), (6, "blue flag appears.", "narration"), (7, "two objects.", "answer")],
        ["红球出现。", "蓝旗出现。", "两个物体。"],
    ),
    (
        "quiet",
        [(0.5, "narrate", "", ""), (4.5, "quiet", "", "")],
        [(3, "red ball appears.", "narration")],
        ["红球出现。"],
    ),
    (
        "repeated",
        [(4.5, "ask", "colour:ball", ""), (9.5, "ask", "colour:ball", "")],
        [(5, "red.", "answer"), (10, "green.", "answer")],
        ["红色。", "绿色。"],
    ),
    (
        "a pending question is dropped by the next one",
        [(0.5, "ask", "colour:flag", ""), (4.5, "ask", "colour:ball", "")],
        [(5, "red.", "answer")],
        ["红色。"],
    ),
    ("nobody asks", [], [], []),
]


@pytest.mark.parametrize(("asked", "expected", "chinese"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_said_and_when(asked: list[tuple[float, str, str, str]], expected: Said, chinese: list[str]) -> None:
    assert said(ask(*asked)) == expected
    assert [(u.t, u.text) for u in ask(*asked, language="zh").utterances] == [
        (t, text) for (t, _, _), text in zip(expected, chinese, strict=True)
    ]


def test_links_between_utterances() -> None:
    first, second = ask((0.5, "narrate", "", ""), (4.5, "keep", "colour:ball", "")).utterances[1:]
    assert (first.answers, first.corrects) == (1, None)
    assert (second.answers, second.corrects, second.replaces_running) == (1, 1, True)
    assert first.evidence == (3, 3) and second.evidence == (9, 9)


def test_captions_are_spoken_as_they_are() -> None:
    draft = ask((0.5, "narrate", "", ""), timeline=kitchen())
    assert [(u.t, u.text) for u in draft.utterances] == [
        (1, "A woman washes a tomato."),
        (4, "She cuts the tomato."),
        (9, "She washes her hands."),
        (12, "She cuts the tomato."),
    ]
    assert said(ask((5.5, "current", "", ""), timeline=kitchen())) == [(6, "She cuts the tomato.", "answer")]


def test_what_goes_on_is_corrected_and_asked_again_where_there_are_no_states() -> None:
    timeline = kitchen()
    for seed in range(20):
        draft = write_dialogue(timeline, TemplateAuthor(), FRAMES, 1.0, {"correction": 1}, random.Random(seed), changes=())
        assert isinstance(draft, Draft)
        kinds, times = [u.kind for u in draft.utterances], [u.t for u in draft.utterances]
        assert kinds[:2] == ["answer", "correction"] and set(kinds[2:]) <= {"correction"} and set(times[1:]) <= {4.0, 9.0, 12.0}
        assert draft.utterances[1].text.startswith("now ") and draft.utterances[1].corrects == 0
        draft = write_dialogue(timeline, TemplateAuthor(), FRAMES, 1.0, {"repeat": 1}, random.Random(seed), changes=())
        assert isinstance(draft, Draft)
        assert draft.users[0].text == draft.users[1].text and draft.utterances[0].text != draft.utterances[1].text


def test_a_state_that_a_cut_splits_is_as_old_as_its_first_part() -> None:
    split = [state(0, 4, "colour:ball", "red"), state(4, 8, "colour:ball", "red"), state(8, 16, "colour:ball", "blue")]
    draft = ask((5.5, "keep", "colour:ball", ""), timeline=Timeline(id="cut", duration=16.0, segments=tuple(split)))
    assert [(u.t, u.text, u.evidence) for u in draft.utterances] == [(6, "red.", (0, 0)), (8, "now blue.", (8, 8))]


def test_an_annotated_question_waits_for_its_evidence() -> None:
    (question,) = kitchen().questions
    plan = Plan(questions=(Question(t=2.5, text=question.text, behaviour="delayed", task="given"),), behaviours=("delayed",))
    draft = answer(kitchen(), TemplateAuthor(), plan, FRAMES)
    assert [(u.t, u.text, u.evidence) for u in draft.utterances] == [(6, "A tomato.", (4, 6))]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_every_behaviour_shows_itself(behaviour: str, language: str) -> None:
    """Whatever is drawn, the dialogue has the mark of its behaviour."""
    for seed in range(40):
        draft = write_dialogue(world(), TemplateAuthor(), FRAMES, 1.0, {behaviour: 1}, random.Random(seed), language, changes=())
        assert isinstance(draft, Draft), draft
        assert draft.plan.behaviours == (behaviour,) and all((u.t * 2) % 2 == 1 for u in draft.users)
        MARKS[behaviour](draft)
        texts = [u.text for u in draft.utterances] + [u.text for u in draft.users]
        assert all(("一" <= c <= "鿿") == (language == "zh") for text in texts for c in text if c.isalpha()), texts


def _frames_after(draft: Draft) -> dict[int, list[float]]:
    """Seconds between each turn of the user and what answers it."""
    return {i: [u.t - turn.t for u in draft.utterances if u.answers == i] for i, turn in enumerate(draft.users)}


def _shows_narration(draft: Draft) -> None:
    assert [u.t for u in draft.utterances] == [3, 6, 9, 12] and draft.users[0].t == 0.5


def _shows_direct(draft: Draft) -> None:
    assert _frames_after(draft) == {0: [0.5]}


def _shows_delayed(draft: Draft) -> None:
    (wait,) = _frames_after(draft)[0]
    assert wait > 1


def _shows_silence(draft: Draft) -> None:
    assert not _frames_after(draft)[len(draft.users) - 1]


def _shows_correction(draft: Draft) -> None:
    kinds = [u.kind for u in draft.utterances]
    assert kinds[:2] == ["answer", "correction"] and draft.utterances[1].corrects == 0


def _shows_interruption(draft: Draft) -> None:
    assert len(draft.users) == 2 and draft.users[1].t - 0.5 in [u.t for u in draft.utterances if u.answers == 0]


def _shows_retraction(draft: Draft) -> None:
    assert draft.utterances == () and len(draft.users) == 2


def _shows_repeat(draft: Draft) -> None:
    assert draft.users[0].text == draft.users[1].text and _frames_after(draft) == {0: [0.5], 1: [0.5]}
    subject = draft.plan.questions[0].subject
    changes = len({s.value for s in world().states(subject)}) > 1
    assert (draft.utterances[0].text != draft.utterances[1].text) == changes


def _shows_count(draft: Draft) -> None:
    assert draft.utterances and all(u.kind == "count" for u in draft.utterances)


def _shows_alert(draft: Draft) -> None:
    assert (draft.plan.questions[0].expected == "never") == (not draft.utterances)
    assert all(u.kind == "alert" and u.tolerance == 1.0 for u in draft.utterances)


def _shows_several_turns(draft: Draft) -> None:
    assert len(draft.users) >= 2 and all(wait == [0.5] for wait in _frames_after(draft).values())


def _shows_not_yet(draft: Draft) -> None:
    assert [u.kind for u in draft.utterances] == ["not_yet", "answer"]
    assert draft.utterances[0].t - draft.users[0].t == 0.5


MARKS = {
    "narrate": _shows_narration,
    "direct": _shows_direct,
    "delayed": _shows_delayed,
    "silence_only": _shows_silence,
    "correction": _shows_correction,
    "interruption": _shows_interruption,
    "retraction": _shows_retraction,
    "repeat": _shows_repeat,
    "count": _shows_count,
    "alert": _shows_alert,
    "several_turns": _shows_several_turns,
    "not_yet": _shows_not_yet,
}


def test_all_behaviours_have_a_planner() -> None:
    assert set(PLANNERS) == set(BEHAVIOURS) == set(MARKS)
    with pytest.raises(InputError, match=r"behaviours\.shout is unknown"):
        plan_behaviour("shout", Ground(world(), (), FRAMES, random.Random(0), Phrases("en", "en")))


def test_nothing_fits_a_single_frame() -> None:
    ground = Ground(world(), (), (0.0,), random.Random(0), Phrases("en", "en"))
    assert all(plan_behaviour(name, ground) is None for name in PLANNERS)


def test_what_was_before_is_another_value_even_where_a_cut_split_the_present_one() -> None:
    values = ((0.0, 2.0, "blue"), (2.0, 4.0, "red"), (4.0, 12.0, "red"))
    states = tuple(Segment(begin=b, end=e, text=v, level="state", subject="colour:ball", value=v) for b, e, v in values)
    draft = ask((5.5, "before", "colour:ball", ""), timeline=Timeline(id="v", duration=12.0, segments=states))
    assert said(draft) == [(6, "blue.", "answer")]
