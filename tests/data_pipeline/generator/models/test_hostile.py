"""Hostile answers end in a rejection that says why: never in a bad row, never in a crash."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.backends.chat import MalformedAnswer, Refused
from data_pipeline.generator.models import ModelAuthor
from data_pipeline.generator.models.fields import spoken_fault
from data_pipeline.generator.models.schemas import SCHEMAS
from data_pipeline.generator.plan import Draft, Rejection
from data_pipeline.generator.stages.write import write_dialogue
from data_pipeline.realtime.dialogue import BEHAVIOURS
from tests.data_pipeline.generator.models.scripted import SILENT, Answer, ScriptedBackend, speak
from tests.data_pipeline.generator.models.test_model_author import CHANGES, SCRIPT, question, write
from tests.data_pipeline.generator.samples import FRAMES, kitchen

GOOD = question(2.2, "What does she do?", "later", "c1")
SEGMENT = {
    "begin": 0.0,
    "end": 4.0,
    "level": "event",
    "text": "x",
    "subject": "",
    "value": "",
    "entities": [],
    "change": "",
    "notes": [0],
}
CHANGE = {"t": 4.0, "kind": "state", "before": "a", "after": "b", "subject": "", "salience": 0.5}
MARKS = {"faithful": 4, "timely": 4, "complete": 4, "redundant": 4, "leak": False, "reason": ""}


def plan(**fields: Any) -> dict[str, Any]:
    return {"questions": [{**GOOD, **fields}]}


HOSTILE: list[tuple[str, Any, str]] = [
    ("plan", "Sorry, no.", "the answer is 'Sorry, no.'; an object is needed"),
    ("plan", None, "the answer is None"),
    ("plan", {}, "questions is None; a list is needed"),
    ("plan", {"questions": "none"}, "questions is 'none'; a list is needed"),
    ("plan", {"questions": [3]}, "questions[0] is 3; an object is needed"),
    ("plan", {"questions": [GOOD, GOOD]}, "questions has 2 entries; delayed takes 1 to 1"),
    ("plan", {"questions": [GOOD] * 21}, "questions has 21 entries; 20 are the most"),
    ("plan", plan(t_ask=99.0), "questions[0].t_ask is 99.0; it must lie within 0..15"),
    ("plan", plan(t_ask=-1), "t_ask is -1"),
    ("plan", plan(t_ask=float("nan")), "a number is needed"),
    ("plan", plan(t_ask=10**400), "a number is needed"),
    ("plan", plan(t_ask="2 s"), "a number is needed"),
    ("plan", plan(t_ask=True), "a number is needed"),
    ("plan", plan(text=""), "it must not be empty"),
    ("plan", plan(text=["a"]), "a text is needed"),
    ("plan", plan(text="x" * 700), "it has 700 characters"),
    ("plan", plan(text="What is there?<|eot_id|>"), "special tokens"),
    ("plan", plan(text="What \ud800?"), "special tokens or characters that cannot be said"),
    ("plan", plan(text="What happens at 4.0 seconds?"), "it names a time"),
    ("plan", plan(text="What is there at 00:04?"), "it names a time"),
    ("plan", plan(text="她在做什么？"), "it is not in English"),
    ("plan", plan(expected="maybe"), "use one of now, later, never"),
    ("plan", plan(depends_on=["c9"]), "there is no change 'c9'"),
    ("plan", plan(depends_on="c1"), "a list is needed"),
    ("plan", plan(depends_on=[{}]), "a text is needed"),
    ("plan", plan(expected="now"), "all of its changes come after the question"),
    ("plan", plan(t_ask=6.0), "all of its changes come before the question"),
    ("answer", {"action": "shout"}, "use one of silent, speak, correct, stop"),
    ("answer", speak("", (0, 1)), "it must not be empty"),
    ("answer", speak("Later she washes her hands.", (9.0, 12.0)), "the seconds that have been seen"),
    ("answer", speak("She cuts it.", (2.0, 1.0)), "it must rise"),
    ("answer", speak("She cuts it.", (-1.0, 1.0)), "it must rise and lie within 0..3 s"),
    ("answer", {**speak("She cuts it.", (0, 1)), "evidence": []}, "two numbers are needed"),
    ("answer", {**speak("She cuts it.", (0, 1)), "evidence": None}, "two numbers are needed"),
    ("answer", speak("She cuts it.", (0, 1), answers=3), "there are 1 of them"),
    ("answer", speak("She cuts it.", (0, 1), answers="0"), "there are 1 of them"),
    ("answer", speak("She cuts it.", (0, 1), corrects=0), "there are 0 of them"),
    ("answer", speak("She cuts it.", (0, 1), action="correct"), "a correction names the line"),
    ("answer", speak("She cuts it.", (0, 1), kind="joke"), "use one of answer"),
    ("answer", speak("In 3 seconds she cuts it.", (0, 1)), "it names a time"),
    ("answer", speak("她在切。", (0, 1)), "it is not in English"),
    ("answer", speak("Hi <|silence|>", (0, 1)), "special tokens"),
    ("style", {"lines": ["one"]}, "lines has 1 entries; the dialogue has 2 lines"),
    ("style", {"lines": ["她在切。", "b"]}, "it is not in English"),
    ("style", {"lines": ["At 4 s she cuts it.", "b"]}, "it names a time"),
    ("style", {"lines": [1, 2]}, "a text is needed"),
    ("style", {"lines": {"0": "a"}}, "a list is needed"),
]


@pytest.mark.parametrize(("role", "answer", "reason"), HOSTILE, ids=[f"{r}-{i}" for i, (r, _, _) in enumerate(HOSTILE)])
def test_a_hostile_answer_is_a_rejection_with_a_reason(role: str, answer: Any, reason: str) -> None:
    found = write(ScriptedBackend({**SCRIPT, role: lambda request: answer}))
    assert isinstance(found, Rejection), found
    assert found.stage == role and reason in found.reason


@pytest.mark.parametrize("role", ["plan", "answer", "style"])
@pytest.mark.parametrize("error", [MalformedAnswer("cut off in the middle"), Refused("I cannot help with that")])
def test_no_answer_at_all_is_a_rejection(role: str, error: Exception) -> None:
    found = write(ScriptedBackend({**SCRIPT, role: error}))
    assert isinstance(found, Rejection) and found.stage == role and str(error) in found.reason


@pytest.mark.parametrize(
    ("role", "answer", "reason"),
    [
        ("normalise", {"segments": []}, "segments is empty although there were notes"),
        ("normalise", {"segments": [{**SEGMENT, "begin": 1.0}]}, "none of its notes begins or ends there"),
        ("normalise", {"segments": [{**SEGMENT, "end": 99.0}]}, "it must lie within"),
        ("normalise", {"segments": [{**SEGMENT, "begin": 4.0, "end": 0.0}]}, "the segment begins at 4 s"),
        ("normalise", {"segments": [{**SEGMENT, "notes": [7]}]}, "name at least one of the 4 notes"),
        ("normalise", {"segments": [{**SEGMENT, "notes": []}]}, "name at least one of the 4 notes"),
        ("normalise", {"segments": [{**SEGMENT, "notes": ["0"]}]}, "name at least one of the 4 notes"),
        ("normalise", {"segments": [{**SEGMENT, "level": "rumour"}]}, "use one of event"),
        ("normalise", {"segments": [{**SEGMENT, "level": "state"}]}, "a state needs a subject and a value"),
        ("normalise", {"segments": [{**SEGMENT, "change": "magic"}]}, "use one of nothing, appear"),
        ("normalise", {"segments": [{**SEGMENT, "level": "state", "subject": "a", "value": "b"}] * 2}, "overlap"),
        ("changes", {"changes": [{**CHANGE, "t": 5.5}]}, "no segment begins, ends or becomes known there"),
        ("changes", {"changes": [{**CHANGE, "t": -2}]}, "it must lie within"),
        ("changes", {"changes": [{**CHANGE, "kind": "mood"}]}, "use one of appear"),
        ("changes", {"changes": [{**CHANGE, "after": "a"}]}, "nothing changes"),
        ("changes", {"changes": [{**CHANGE, "salience": 3}]}, "it must lie within 0..1"),
        ("judge", {**MARKS, "faithful": 5}, "it must lie within 0..4"),
        ("judge", {**MARKS, "leak": "no"}, "true or false is needed"),
        ("judge", {**MARKS, "timely": None}, "a number is needed"),
    ],
)
def test_stages_around_the_dialogue(role: str, answer: dict[str, Any], reason: str) -> None:
    author = ModelAuthor(ScriptedBackend({**SCRIPT, role: answer}))
    draft = write(ScriptedBackend(SCRIPT))
    assert isinstance(draft, Draft)
    with pytest.raises(Unfit) as caught:
        author.judge(draft, kitchen()) if role == "judge" else getattr(author, {"normalise": "normalise"}.get(role, role))(
            kitchen()
        )
    assert caught.value.stage == role and reason in caught.value.reason


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(("now", "speak", "c1", "a b")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)


def like(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that mostly follow a schema and sometimes do not."""
    kind = schema.get("type")
    if "enum" in schema:
        own: st.SearchStrategy[Any] = st.sampled_from(schema["enum"])
    elif kind == "object":
        own = st.fixed_dictionaries({}, optional={key: like(value) for key, value in schema["properties"].items()})
        own = own | st.fixed_dictionaries({key: like(value) for key, value in schema["properties"].items()})
    elif kind == "array":
        own = st.lists(like(schema["items"]), max_size=3)
    elif kind == "string":
        own = st.sampled_from(("red", "What is it?", "c1", "", "count", "她"))
    elif kind == "boolean":
        own = st.booleans()
    else:
        own = st.integers(-1, 16) | st.sampled_from((0, 4.0, 9.0))
    return st.integers(0, 19).flatmap(lambda i: JSON if i == 0 else own)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(BEHAVIOURS), st.sampled_from(("en", "zh")))
def test_whatever_comes_back_there_is_a_good_draft_or_a_rejection(data: st.DataObject, behaviour: str, language: str) -> None:
    script: dict[str, Answer] = {
        role: (lambda request, role=role: data.draw(like(SCHEMAS[role]), label=role))  # type: ignore[misc]
        for role in ("plan", "answer", "style")
    }
    author = ModelAuthor(ScriptedBackend(script))
    found = write_dialogue(kitchen(), author, FRAMES, 1.0, {behaviour: 1.0}, random.Random(0), language, "a friend", CHANGES)
    if isinstance(found, Rejection):
        assert found.reason and found.stage in ("plan", "answer", "style")
        return
    for utterance in found.utterances:
        assert utterance.evidence[0] <= utterance.evidence[1] <= utterance.t and utterance.text.strip()
        assert spoken_fault(utterance.text, language) == ""


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_answer_breaks_the_other_stages(data: st.DataObject) -> None:
    for role in ("normalise", "changes"):
        author = ModelAuthor(ScriptedBackend({role: lambda request, role=role: data.draw(like(SCHEMAS[role]))}))  # type: ignore[misc]
        try:
            getattr(author, role)(kitchen())
        except Unfit as unfit:
            assert unfit.stage == role and unfit.reason


def test_a_silent_model_with_an_answer_that_is_due_is_rejected() -> None:
    script: dict[str, Answer] = {**SCRIPT, "plan": plan(t_ask=6.0, expected="now"), "answer": SILENT}
    found = write(ScriptedBackend(script), "direct")
    assert isinstance(found, Rejection) and found.stage == "answer"
