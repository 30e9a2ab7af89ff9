"""The author that asks a model, against an endpoint with sound answers."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.backends.chat import BudgetSpent, ChatRequest, EndpointDown
from data_pipeline.generator.models import ModelAuthor, ModelOptions
from data_pipeline.generator.models.prompt_files import FOLDER, ROLES, prompt
from data_pipeline.generator.models.schemas import SCHEMAS
from data_pipeline.generator.plan import Draft, Rejection
from data_pipeline.generator.stages.write import write_dialogue
from data_pipeline.generator.templates import TemplateAuthor
from data_pipeline.timeline.timeline import Change
from model.errors import InputError
from tests.data_pipeline.generator.models.scripted import SILENT, Answer, ScriptedBackend, now_of, speak
from tests.data_pipeline.generator.samples import FRAMES, kitchen, world

CHANGES: tuple[Change, ...] = (
    Change(id="c1", t=4.0, kind="action", before="washes", after="cuts"),
    Change(id="c2", t=9.0, kind="action", before="cuts", after="washes hands"),
)


def question(t: float, text: str, expected: str = "now", *changes: str) -> dict[str, Any]:
    return {"t_ask": t, "text": text, "expected": expected, "depends_on": list(changes)}


def cutting(request: ChatRequest) -> dict[str, Any]:
    """What she does with the tomato: answered once she cuts it, corrected when she stops."""
    now, said = now_of(request), request.text.count(" assistant ")
    if now >= 9 and said == 1:
        return speak("Now she washes her hands.", (9.0, now), action="correct", answers=0, corrects=0)
    return speak("She is cutting it.", (4.0, 4.0), answers=0) if now >= 4 and not said else SILENT


SCRIPT: dict[str, Answer] = {
    "plan": {"questions": [question(2.2, "What does she do with the tomato?", "later", "c1")]},
    "answer": cutting,
    "style": lambda request: {
        "lines": [f"Look: {line.split(': ', 1)[1]}" for line in request.text.split("Lines:\n")[1].split("\n")]
    },
    "judge": {"faithful": 4, "timely": 3, "complete": 3.5, "redundant": 4, "leak": False, "reason": ""},
}


def write(
    backend: ScriptedBackend, behaviour: str = "delayed", language: str = "en", persona: str = "a friend", **options: Any
) -> Draft | Rejection:
    author = ModelAuthor(backend, options=ModelOptions(**options))
    return write_dialogue(kitchen(), author, FRAMES, 1.0, {behaviour: 1.0}, random.Random(0), language, persona, CHANGES)


def test_a_dialogue_by_the_model() -> None:
    backend = ScriptedBackend(SCRIPT)
    draft = write(backend)
    assert isinstance(draft, Draft), draft
    assert [(u.t, u.text) for u in draft.users] == [(2.5, "What does she do with the tomato?")]
    assert [(u.t, u.text, u.evidence, u.corrects) for u in draft.utterances] == [
        (4.0, "Look: She is cutting it.", (4.0, 4.0), None),
        (9.0, "Look: Now she washes her hands.", (9.0, 9.0), 0),
    ]
    judgement = ModelAuthor(backend).judge(draft, kitchen())
    assert judgement is not None and judgement.score == 3.625 and not judgement.leak
    assert "9-12 s event: She washes her hands" in backend.asked("judge")[0].text


def test_the_policy_is_never_shown_the_future_and_asked_only_where_something_is_new() -> None:
    backend = ScriptedBackend(SCRIPT)
    write(backend)
    asked = backend.asked("answer")
    # The question at 3 s, the segments at 4, 9 and 12 s, the annotated answer at 6 s, the end at 16 s is beyond the last frame.
    assert [now_of(r) for r in asked] == [3.0, 4.0, 6.0, 9.0, 12.0]
    for request in asked:
        now = now_of(request)
        assert ("hands" in request.text) == (now >= 9) and ("annotated" in request.text) == (now >= 6)
        assert "c1" not in request.text and "later" not in request.text.split("It is")[0]
        times = [float(w) for w in request.text.replace("-", " ").replace("...", "").split() if w.replace(".", "").isdigit()]
        assert max(times) <= now


def test_requests_carry_their_prompt_and_schema() -> None:
    backend = ScriptedBackend(SCRIPT)
    write(backend)
    for request in backend.requests:
        assert request.system == prompt(request.role) and request.schema == SCHEMAS[request.role]
        assert request.temperature == (0.7 if request.role in ("plan", "style") else 0.0)
    jsonschema.validate(SCRIPT["plan"], SCHEMAS["plan"])
    jsonschema.validate(SCRIPT["judge"], SCHEMAS["judge"])
    jsonschema.validate(speak("x", (0, 1)), SCHEMAS["answer"])


def test_every_role_has_a_prompt_and_a_schema() -> None:
    assert {p.stem for p in FOLDER.glob("*.txt")} == set(ROLES) == set(SCHEMAS)
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert all(len(prompt(role)) > 100 for role in ROLES)


def test_what_needs_no_model_asks_none() -> None:
    backend = ScriptedBackend({})
    author = ModelAuthor(backend)
    for behaviour in ("narrate", "silence_only", "count", "retraction", "interruption"):
        ours = write_dialogue(world(), author, FRAMES, 1.0, {behaviour: 1}, random.Random(2), "zh", "plain", ())
        assert ours == write_dialogue(world(), TemplateAuthor(), FRAMES, 1.0, {behaviour: 1}, random.Random(2), "zh", "plain", ())
    assert backend.requests == []


def test_a_language_that_the_templates_lack_goes_to_the_model() -> None:
    script: dict[str, Answer] = {
        "plan": {"questions": [question(0.2, "请告诉我发生了什么。", "later", "c1")]},
        "answer": lambda r: speak("她在切番茄。", (4.0, 4.0), answers=0, kind="narration") if now_of(r) == 4 else SILENT,
        "style": {"lines": ["她开始切番茄了。"]},
    }
    draft = write(ScriptedBackend(script), "narrate", "zh")
    assert isinstance(draft, Draft), draft
    assert [(u.t, u.text, u.kind) for u in draft.utterances] == [(4.0, "她开始切番茄了。", "narration")]


def test_the_model_may_find_that_nothing_fits() -> None:
    found = write(ScriptedBackend({"plan": {"questions": []}}), "correction")
    assert isinstance(found, Rejection) and found.stage == "plan" and "correction" in found.reason


def test_saying_a_thing_again_is_silence() -> None:
    script = {**SCRIPT, "answer": lambda r: speak("She is cutting it.", (4.0, 4.0), answers=0) if now_of(r) >= 4 else SILENT}
    draft = write(ScriptedBackend(script))
    assert isinstance(draft, Draft) and len(draft.utterances) == 1


def test_the_number_of_calls_is_bounded() -> None:
    backend = ScriptedBackend({**SCRIPT, "answer": SILENT})
    found = write(backend, most_decisions=3)
    assert isinstance(found, Rejection) and "more than 3 decisions" in found.reason
    assert len(backend.asked("answer")) == 3


def test_a_line_over_its_budget_keeps_the_words_of_the_policy() -> None:
    def long(request: ChatRequest) -> dict[str, Any]:
        return {"lines": ["She cuts it. " * 30, "Now her hands get washed."]}

    draft = write(ScriptedBackend({**SCRIPT, "style": long}))
    assert isinstance(draft, Draft)
    assert [u.text for u in draft.utterances] == ["She is cutting it.", "Now her hands get washed."]


@pytest.mark.parametrize("error", [BudgetSpent("the budget of 5 dollars is spent"), EndpointDown("no answer")])
def test_trouble_of_the_endpoint_ends_the_build_not_the_dialogue(error: Exception) -> None:
    with pytest.raises(type(error)):
        write(ScriptedBackend({"plan": error}))


def test_normalising_and_changes() -> None:
    segments = [
        {"begin": 0.0, "end": 4.0, "level": "action", "text": "washes a tomato", "subject": "", "value": ""},
        {"begin": 4.02, "end": 9.0, "level": "state", "text": "tomato is cut", "subject": "state:tomato", "value": "in pieces"},
    ]
    answer = {"segments": [{**s, "entities": ["tomato"], "change": "action", "notes": [i]} for i, s in enumerate(segments)]}
    change = {"t": 4.0, "kind": "state", "before": "whole", "after": "in pieces", "subject": "state:tomato", "salience": 0.9}
    backend = ScriptedBackend({"normalise": answer, "changes": {"changes": [change, change]}})
    author = ModelAuthor(backend)
    timeline = author.normalise(kitchen())
    assert [(s.begin, s.end, s.level, s.subject, s.value) for s in timeline.segments] == [
        (0.0, 4.0, "action", "", ""),
        (4.0, 9.0, "state", "state:tomato", "in pieces"),
    ]
    assert timeline.questions == kitchen().questions and backend.requests[0].text.count("\n0. ") == 1
    assert author.changes(timeline) == (
        Change(id="c1", t=4.0, kind="state", before="whole", after="in pieces", subject="state:tomato", salience=0.9),
    )


def test_what_is_made_of_a_note_is_known_no_earlier_than_the_note() -> None:
    import dataclasses

    note = dataclasses.replace(kitchen().segments[0], level="action")  # its text may tell how it ends
    timeline = dataclasses.replace(kitchen(), segments=(note,))
    made = {
        "begin": 0,
        "end": 4,
        "level": "event",
        "text": "x",
        "subject": "",
        "value": "",
        "entities": [],
        "change": "",
        "notes": [0],
    }
    author = ModelAuthor(ScriptedBackend({"normalise": {"segments": [made]}}))
    (segment,) = author.normalise(timeline).segments
    assert segment.known_from == 4.0


def test_stages_can_be_left_to_rules() -> None:
    backend = ScriptedBackend({})
    author = ModelAuthor(backend, options=ModelOptions(stages=()))
    draft = write_dialogue(world(), author, FRAMES, 1.0, {"delayed": 1.0}, random.Random(1), persona="plain")
    assert isinstance(draft, Draft) and author.judge(draft, world()) is None
    assert author.normalise(world()) == TemplateAuthor().normalise(world()) and backend.requests == []


def test_options_and_identity() -> None:
    backend = ScriptedBackend({})
    identities = {
        ModelAuthor(backend).identity,
        ModelAuthor(backend, options=ModelOptions(most_decisions=9)).identity,
        ModelAuthor(backend, fallback=TemplateAuthor(unasked=1.0)).identity,
    }
    assert len(identities) == 3 and all("scripted" in i for i in identities)
    for bad in ({"stages": ("paint",)}, {"by_rules": ("shout",)}, {"most_decisions": 0}, {"words_per_second": -1.0}):
        with pytest.raises(InputError):
            ModelOptions(**bad)  # type: ignore[arg-type]
    with pytest.raises(Unfit, match="lines has 0 entries"):
        draft = write(ScriptedBackend(SCRIPT))
        assert isinstance(draft, Draft)
        ModelAuthor(ScriptedBackend({"style": {"lines": []}})).style(draft, "a friend", random.Random(0))
