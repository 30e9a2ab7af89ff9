from __future__ import annotations

import dataclasses
import random

import pytest

from data_pipeline.generator.plan import Draft, Plan, Question, Rejection
from data_pipeline.generator.stages.write import answer, write_dialogue
from data_pipeline.generator.templates import TemplateAuthor
from data_pipeline.realtime.dialogue import BEHAVIOURS
from model.errors import InputError
from tests.data_pipeline.generator.samples import FRAMES, kitchen, world


def plain(task: str, t: float = 0.5, subject: str = "", target: str = "", language: str = "en", seed: int = 0) -> list[str]:
    question = Question(t=t, text="?", behaviour="direct", task=task, subject=subject, target=target)
    author = TemplateAuthor()
    draft = answer(world(), author, Plan(questions=(question,), behaviours=("direct",), language=language), FRAMES)
    return [u.text for u in author.style(draft, "plain", random.Random(seed)).utterances]


def any_of(task: str, **more: str | float) -> set[tuple[str, ...]]:
    """What the plain register makes of it, over many draws."""
    return {tuple(plain(task, seed=seed, **more)) for seed in range(30)}  # type: ignore[arg-type]


def test_whole_sentences() -> None:
    assert any_of("ask", t=4.5, subject="colour:ball") == {("It is red.",), ("The ball is red.",)}
    assert any_of("ask", t=6.5, subject="visible") == {
        ("I see a red ball and a blue flag.",),
        ("There is a red ball and a blue flag.",),
    }
    assert ("A red ball appears.", "A blue flag appears.", "The ball turns green.", "A green ball leaves.") in any_of("narrate")
    assert any_of("yet", target="flag appears") >= {("Not yet.", "Yes, a blue flag appears.")}
    assert any_of("last") == {("Nothing.",)}
    assert any_of("ask", t=4.5, subject="colour:ball", language="zh") == {("是红色。",), ("球是红色。",)}


def test_one_wording_a_dialogue() -> None:
    for count in any_of("count", t=4.5, subject="count"):
        assert count in {
            ("One object.", "Two objects.", "One object."),
            ("I count one object.", "I count two objects.", "I count one object."),
        }


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_register_changes_words_alone(language: str) -> None:
    for behaviour in BEHAVIOURS:
        for seed in range(5):
            both = [
                write_dialogue(world(), TemplateAuthor(), FRAMES, 1.0, {behaviour: 1}, random.Random(seed), language, persona, ())
                for persona in ("terse", "plain")
            ]
            terse, full = both
            assert isinstance(terse, Draft) and isinstance(full, Draft) and terse.plan == full.plan
            assert [dataclasses.replace(u, text="") for u in terse.utterances] == [
                dataclasses.replace(u, text="") for u in full.utterances
            ]
            assert all("{" not in u.text for u in full.utterances)


def test_the_same_seed_writes_the_same() -> None:
    def write(seed: int) -> Draft | Rejection:
        weights = dict.fromkeys(BEHAVIOURS, 1.0)
        return write_dialogue(world(), TemplateAuthor(), FRAMES, 1.0, weights, random.Random(seed), "en", "plain", changes=())

    assert [write(seed) for seed in range(20)] == [write(seed) for seed in range(20)]
    assert len({repr(write(seed)) for seed in range(20)}) > 15


def test_captions_of_another_language_are_left_alone() -> None:
    found = write_dialogue(
        kitchen(), TemplateAuthor(), FRAMES, 1.0, {"narrate": 1, "alert": 1}, random.Random(0), "zh", changes=()
    )
    assert isinstance(found, Rejection) and found.stage == "plan" and "in zh: " in found.reason


def test_a_narration_that_nobody_asks_for() -> None:
    draft = write_dialogue(world(), TemplateAuthor(unasked=1.0), FRAMES, 1.0, {"interruption": 1}, random.Random(1), changes=())
    assert isinstance(draft, Draft)
    assert len(draft.plan.questions) == 2 and len(draft.users) == 1, "the empty turn is no turn of the user"
    assert draft.utterances[0].answers is None and draft.utterances[0].t == 3
    assert {u.answers for u in draft.utterances if u.t > draft.users[0].t} <= {0}
    # It begins at the very first frame.
    alone = write_dialogue(
        kitchen(), TemplateAuthor(unasked=1.0), FRAMES, 1.0, {"narrate": 1}, random.Random(0), persona="plain", changes=()
    )
    assert isinstance(alone, Draft) and alone.users == () and alone.utterances[0].t == 0.0


def test_identity_and_options() -> None:
    assert TemplateAuthor().identity == TemplateAuthor().identity != TemplateAuthor(unasked=0.5).identity
    with pytest.raises(InputError, match="unasked is 2"):
        TemplateAuthor(unasked=2)
    with pytest.raises(InputError, match="persona is 'pirate'"):
        TemplateAuthor().style(Draft(plan=Plan(questions=(), behaviours=()), users=(), utterances=()), "pirate", random.Random(0))
