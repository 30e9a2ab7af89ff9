from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from data_pipeline.generator.plan import Draft
from data_pipeline.generator.stages.agree import agree, holds
from data_pipeline.generator.stages.seen import Prior, leaks_by_rules, question_kind
from data_pipeline.generator.stages.write import write_dialogue
from data_pipeline.generator.templates import TemplateAuthor
from data_pipeline.world.story import build_story
from tests.data_pipeline.generator.samples import FRAMES, kitchen, world


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("red.", "It is red.", True),
        ("red.", "blue.", False),
        ("two objects.", "I count two objects.", True),
        ("two objects.", "one object.", False),
        ("红色。", "现在是红色。", True),
        ("红色。", "蓝色。", False),
        ("not yet.", "yes, red ball appears.", False),
        ("", "red.", False),
    ],
)
def test_agreement(a: str, b: str, same: bool) -> None:
    assert agree(a, b) == agree(b, a) == same


def test_a_sentence_holds_a_short_answer() -> None:
    assert holds("EXIT.", "The sign says EXIT.") and holds("top left.", "The ball is at the top left.", "Where is the ball?")
    assert not holds("red ball.", "A red ball, a blue flag and a cat.") and not holds("", "red.") and not holds("red.", "blue.")


def test_lists_that_differ_in_one_thing_are_no_leak() -> None:
    """Three of four things were there before: the answer still rests on the fourth."""
    for seed, level in itertools.product(range(8), (3, 5)):
        story = build_story(level, seed)
        timeline, author = story.timeline(), TemplateAuthor()
        for behaviour, persona in itertools.product(("direct", "correction", "repeat", "several_turns"), ("terse", "plain")):
            draft = write_dialogue(
                timeline, author, list(story.frame_times), 1.0, {behaviour: 1}, random.Random(seed), "en", persona, ()
            )
            if isinstance(draft, Draft):
                assert all(leak.clean for leak in leaks_by_rules(draft, timeline, author)), draft


def drafts(persona: str = "terse", language: str = "en") -> list[Draft]:
    weights = {"direct": 1.0, "delayed": 1.0, "correction": 1.0, "repeat": 1.0, "several_turns": 1.0}
    found = [
        write_dialogue(world(), TemplateAuthor(), FRAMES, 1.0, weights, random.Random(seed), language, persona, ())
        for seed in range(40)
    ]
    return [d for d in found if isinstance(d, Draft)]


@pytest.mark.parametrize("persona", ["terse", "plain"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_rest_on_their_evidence(persona: str, language: str) -> None:
    findings = [leak for draft in drafts(persona, language) for leak in leaks_by_rules(draft, world(), TemplateAuthor())]
    assert len(findings) > 40 and all(leak.clean for leak in findings)


def test_an_answer_that_came_true_later_is_found() -> None:
    """`green` at 6 s, though the ball turns green at 9 s."""
    draft = next(d for d in drafts() if d.plan.questions[0].subject == "colour:ball" and d.utterances[0].text == "red.")
    wrong = dataclasses.replace(draft.utterances[0], text="green.")
    (leak, *_) = leaks_by_rules(dataclasses.replace(draft, utterances=(wrong,)), world(), TemplateAuthor())
    assert not leak.after and not leak.clean


def test_an_answer_that_needs_no_evidence_is_found() -> None:
    draft = next(d for d in drafts() if d.plan.questions[0].subject == "colour:flag")
    late = dataclasses.replace(draft.utterances[0], evidence=(draft.utterances[0].t, draft.utterances[0].t))
    assert draft.utterances[0].t > 6, "asked once the flag was there"
    (leak, *_) = leaks_by_rules(dataclasses.replace(draft, utterances=(late,)), world(), TemplateAuthor())
    assert leak.before and not leak.clean


def test_an_annotated_answer_rests_on_its_evidence() -> None:
    draft = write_dialogue(kitchen(), TemplateAuthor(), FRAMES, 1.0, {"direct": 1}, random.Random(0), changes=())
    assert isinstance(draft, Draft)
    assert [leak.clean for leak in leaks_by_rules(draft, kitchen(), TemplateAuthor())] == [True]


def test_the_prior_is_the_most_frequent_answer_of_a_kind() -> None:
    prior, answers = Prior(), drafts()
    for draft in answers:
        prior.add(draft)
    kind = "ask:colour"
    texts = [u.text for d in answers for u in d.utterances for q in d.plan.questions[:1] if question_kind(q) == kind]
    assert prior.guess(kind) in texts and 0 < prior.share(kind) < 1
    assert prior.guess("ask:unheard") == "" and prior.share("ask:unheard") == 0
    shares = [prior.blind(d) for d in answers]
    assert 0 in shares and max(shares) > 0 and all(0 <= s <= 1 for s in shares)
