from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from typing import Any

import pytest

from data_pipeline.generator.plan import Action, Draft, Known, Plan, Question, Rejection
from data_pipeline.generator.stages.write import answer, draft_to_dialogue, write_dialogue
from data_pipeline.generator.templates import TemplateAuthor
from data_pipeline.realtime.dialogue import BEHAVIOURS
from data_pipeline.realtime.layout import lay_out
from data_pipeline.realtime.render import to_messages
from data_pipeline.realtime.rules import CheckOptions, check_dialogue
from data_pipeline.timeline.timeline import Timeline
from data_pipeline.world.story import build_story
from model.errors import InputError
from tests.data_pipeline.generator.samples import FRAMES, event, kitchen, world


class Careless(TemplateAuthor):
    """An author whose actions or plans are not to be trusted."""

    def __init__(self, action: Action | None = None, plan: Plan | None = None) -> None:
        super().__init__()
        self.action, self.bad_plan = action, plan

    def act(self, known: Known) -> Action | None:
        return self.action or super().act(known)

    def plan(self, *args: Any, **kwargs: Any) -> Plan | None:
        return self.bad_plan or super().plan(*args, **kwargs)


def write(author: TemplateAuthor, **weights: float) -> Draft | Rejection:
    return write_dialogue(world(), author, FRAMES, 1.0, weights or {"narrate": 1.0}, random.Random(3), changes=())


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (Action(text="x", evidence=(0.0, 15.0)), "the evidence 0..15 s of 'x' does not lie within the 1 s that have been seen"),
        (Action(text="x", evidence=(-1.0, 0.5)), "does not lie within"),
        (Action(text="x", evidence=(1.0, 0.5)), "does not lie within"),
        (Action(text="x", evidence=(float("nan"), 0.5)), "does not lie within"),
        (Action(text="x", evidence=(0.0, 0.5), answers=4), "answers turn 4; 1 have been asked"),
        (Action(text="x", evidence=(0.0, 0.5), corrects=0), "corrects utterance 0; 0 have been said"),
        (Action(text=" ", evidence=(0.0, 0.5)), "an action at 1 s has an empty text"),
    ],
)
def test_an_action_ahead_of_its_evidence_is_rejected_whoever_wrote_it(action: Action, reason: str) -> None:
    found = write(Careless(action))
    assert isinstance(found, Rejection) and found.stage == "answer" and reason in found.reason


@pytest.mark.parametrize(
    ("questions", "reason"),
    [
        ((), "the plan has no questions"),
        ((Question(t=15.0, text="a?", behaviour="direct"),), "questions[0].t is 15"),
        ((Question(t=-0.5, text="a?", behaviour="direct"),), "questions[0].t is -0.5"),
        ((Question(t=1.5, text="a?", behaviour="shout"),), "questions[0].behaviour is 'shout'"),
        (tuple(Question(t=t, text="a?", behaviour="direct") for t in (3.5, 1.5)), "not in order of time"),
    ],
)
def test_a_plan_that_cannot_be_played_is_rejected(questions: tuple[Question, ...], reason: str) -> None:
    found = write(Careless(plan=Plan(questions=questions, behaviours=("direct",))))
    assert isinstance(found, Rejection) and found.stage == "plan" and reason in found.reason


def test_an_answer_that_fails_to_come_is_rejected() -> None:
    plan = Plan(questions=(Question(t=1.5, text="a?", behaviour="direct", task="quiet"),), behaviours=("direct",))
    found = write(Careless(plan=plan))
    assert isinstance(found, Rejection) and (found.stage, found.behaviour) == ("answer", "direct")


def test_another_behaviour_is_drawn_where_one_does_not_fit() -> None:
    weights = {"correction": 1000.0, "repeat": 1000.0, "narrate": 0.001}
    bang = Timeline(id="bang", duration=16.0, segments=(event(5, "a bang"),))
    draft = write_dialogue(bang, TemplateAuthor(), FRAMES, 1.0, weights, random.Random(0), changes=())
    assert isinstance(draft, Draft) and draft.plan.behaviours == ("narrate",)
    del weights["narrate"]
    found = write_dialogue(bang, TemplateAuthor(), FRAMES, 1.0, weights, random.Random(0), changes=())
    assert isinstance(found, Rejection) and found.stage == "plan"
    assert "correction" in found.reason and "repeat" in found.reason


def test_weights_are_shares() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(300):
        weights = {"direct": 3.0, "count": 1.0, "alert": 0.0}
        draft = write_dialogue(world(), TemplateAuthor(), FRAMES, 1.0, weights, random.Random(seed), changes=())
        assert isinstance(draft, Draft)
        drawn[draft.plan.behaviours[0]] += 1
    assert set(drawn) == {"direct", "count"} and 200 <= drawn["direct"] <= 250


@pytest.mark.parametrize(
    ("behaviours", "times", "fps", "message"),
    [
        ({"shout": 1.0}, FRAMES, 1.0, r"behaviours\.shout is unknown"),
        ({"direct": -1.0}, FRAMES, 1.0, r"behaviours\.direct is -1"),
        ({"direct": float("nan")}, FRAMES, 1.0, r"behaviours\.direct is nan"),
        ({"direct": 0.0}, FRAMES, 1.0, "no weight above 0"),
        ({"direct": 1.0}, (), 1.0, "frame times"),
        ({"direct": 1.0}, (0.0, 0.0), 1.0, "frame times"),
        ({"direct": 1.0}, FRAMES, 0.0, "fps is 0"),
    ],
)
def test_bad_arguments(behaviours: dict[str, float], times: tuple[float, ...], fps: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_dialogue(world(), TemplateAuthor(), times, fps, behaviours, random.Random(0), changes=())


def test_patience_is_the_least_tolerance() -> None:
    def tolerances(behaviour: str, patience: float) -> set[float]:
        draft = write_dialogue(
            world(), TemplateAuthor(), FRAMES, 1.0, {behaviour: 1.0}, random.Random(1), changes=(), patience=patience
        )
        assert isinstance(draft, Draft)
        return {u.tolerance for u in draft.utterances}

    assert (tolerances("narrate", 0.0), tolerances("narrate", 0.5)) == ({0.0}, {0.5})
    assert (tolerances("alert", 0.5), tolerances("alert", 2.0)) == ({1.0}, {2.0})
    with pytest.raises(InputError, match="patience is -1"):
        tolerances("narrate", -1.0)


def test_the_policy_sees_no_expectations() -> None:
    seen: list[Known] = []

    class Watching(TemplateAuthor):
        def act(self, known: Known) -> Action | None:
            seen.append(known)
            return super().act(known)

    question = Question(
        t=3.5, text="q", behaviour="delayed", task="ask", subject="colour:flag", expected="later", depends_on=("c1",)
    )
    answer(world(), Watching(), Plan(questions=(question,), behaviours=("delayed",)), FRAMES)
    assert [known.t for known in seen] == list(FRAMES[4:]), "nobody is asked before the first turn"
    for known in seen:
        assert known.asked == (dataclasses.replace(question, expected="now", depends_on=()),)
        assert known.timeline == world().until(known.t) and known.frames == FRAMES[: known.frame + 1]


def test_a_draft_becomes_a_dialogue() -> None:
    draft = write(TemplateAuthor())
    assert isinstance(draft, Draft)
    timeline = dataclasses.replace(kitchen(), license="CC0", split_key="k")
    dialogue = draft_to_dialogue(draft, timeline, "d1", FRAMES, 1.0, "Be kind.", {"seed": 1}, {"a": 2})
    assert (dialogue.id, dialogue.video, dialogue.license, dialogue.split_key) == ("d1", "kitchen.mp4", "CC0", "k")
    assert (dialogue.system, dialogue.generator, dialogue.meta, dialogue.timeline) == (
        "Be kind.",
        {"seed": 1},
        {"a": 2},
        "kitchen",
    )
    assert dialogue.users == draft.users and dialogue.utterances == draft.utterances and dialogue.behaviours == ("narrate",)


def test_it_lays_out_renders_and_keeps_the_rules() -> None:
    def count_words(text: str) -> int:
        return len(text.split())

    for seed in range(30):
        weights = {"narrate": 1.0, "interruption": 2.0, "correction": 1.0, "several_turns": 1.0}
        draft = write_dialogue(world(), TemplateAuthor(), FRAMES, 1.0, weights, random.Random(seed), changes=())
        assert isinstance(draft, Draft)
        dialogue = lay_out(draft_to_dialogue(draft, world(), "d", FRAMES, 1.0), count_words, 2.0)
        messages = to_messages(dialogue, count_words)
        assert sum(m.content.count("<|video|>") for m in messages) == len(FRAMES)
        assert [m.content for m in messages if m.role == "user" and m.content] == [u.text for u in draft.users]


@pytest.mark.parametrize("level", [1, 3, 5])
def test_stories_keep_the_hard_rules_in_both_languages_and_registers(level: int) -> None:
    def count_tokens(text: str) -> int:
        return len(text.encode()) // 4 + 1

    for seed, language, persona in itertools.product(range(3), ("en", "zh"), ("terse", "plain")):
        story = build_story(level, seed)
        timeline = story.timeline()
        for behaviour in BEHAVIOURS:
            draft = write_dialogue(
                timeline, TemplateAuthor(), story.frame_times, 1.0, {behaviour: 1}, random.Random(seed), language, persona, ()
            )
            assert isinstance(draft, Draft), draft
            dialogue = lay_out(draft_to_dialogue(draft, timeline, "d", story.frame_times, 1.0), count_tokens, 32.0)
            assert check_dialogue(dialogue, count_tokens, CheckOptions(max_wait=1.0)) == []
