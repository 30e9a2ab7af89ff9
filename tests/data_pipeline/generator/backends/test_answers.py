"""JSON out of what models write."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.generator.backends.answers import Unreadable, is_refusal, read_answer, schema_fault
from data_pipeline.generator.models.schemas import SCHEMAS
from tests.data_pipeline.generator.backends.requests import ANSWER

TEXT = json.dumps(ANSWER)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["speak", "", "answer"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner), max_leaves=6
)


@pytest.mark.parametrize("text", [TEXT, f"```json\n{TEXT}\n```", f"<think>{{no}}</think>\n{TEXT}", f"Here you are: {TEXT} Done."])
def test_thoughts_fences_and_words_around_are_taken_away(text: str) -> None:
    assert read_answer(text, SCHEMAS["answer"]) == ANSWER


@pytest.mark.parametrize(
    "text",
    [
        f"```\n```json\n{TEXT}\n```\n```",
        f"The set {{a, b}} gives {TEXT}",
        f"maybe {TEXT.replace('red', 'blue')}? no.</think>{TEXT}",
        f"<think>{TEXT.replace('red', 'blue')}</think> hm <think>no {{}}</think>\n{TEXT}",
        f"{TEXT}\nOnce more: {TEXT}",
        f"\ufeff{TEXT}",
    ],
)
def test_drafts_and_braces_of_other_words_are_passed_over(text: str) -> None:
    assert read_answer(text, SCHEMAS["answer"]) == ANSWER


@given(st.dictionaries(st.sampled_from([*ANSWER, "more"]), VALUES))
def test_the_schema_is_checked_as_jsonschema_does(changes: dict[str, Any]) -> None:
    value = {**ANSWER, **changes}
    # the library takes 1.0 for a whole number, we do not
    whole = all(not (isinstance(value[key], float) and value[key].is_integer()) for key in ("answers", "corrects"))
    if whole:
        valid = jsonschema.Draft202012Validator(SCHEMAS["answer"]).is_valid(value)
        assert (schema_fault(value, SCHEMAS["answer"]) == "") == valid


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no JSON object"),
        (TEXT[:-1], "not valid JSON"),
        ("{" * 3 + "}", "not valid JSON"),
        (TEXT.replace('"speak"', '"shout"'), "action is 'shout'; it must be one of"),
        (TEXT.replace('"red ball"', "NaN"), "NaN is no number"),
        (TEXT.replace('"red ball"', '"\\ud800"'), "not valid JSON"),
        (TEXT.replace('"red ball"', "1e999"), "beyond all numbers"),
        (TEXT.replace("null", "9" * 400), "has 400 digits"),
        (TEXT[:-1] + ', "text": "blue ball"}', "the field 'text' stands there twice"),
        (f"<think>perhaps {TEXT}? hm", "thoughts do not end"),
        (f"no.</think>Well <think>{TEXT}", "thoughts do not end"),
        (f"{TEXT} or rather {TEXT.replace('red', 'blue')}", "2 different answers"),
        (f'{TEXT[:-1]}, "more": {TEXT}', "not valid JSON"),
        ("{x " * 101 + TEXT, "not valid JSON"),
        ('{"a":' * 100 + "1" + "}" * 100, "lacks|nested"),
    ],
)
def test_faults_are_told_in_words(text: str, fault: str) -> None:
    with pytest.raises(Unreadable, match=fault):
        read_answer(text, SCHEMAS["answer"])


def test_refusals_are_known() -> None:
    assert is_refusal("I’m sorry, I can't help.") and is_refusal("抱歉，我不能回答。")
    assert not is_refusal(TEXT) and not is_refusal("The ball is red.")
