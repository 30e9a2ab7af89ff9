"""Chat templates and truncation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.schema import Message
from data_pipeline.text.template import Turn, encode_interruption, encode_prompt, encode_turns, shared_lengths, truncate_turns
from model.errors import InputError
from tests.data_pipeline.helpers import tokenizer

TOKENIZER = tokenizer()
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"


def messages(*contents: str, system: str | None = None) -> list[Message]:
    roles = ["user", "assistant"] * len(contents)
    head = [Message(role="system", content=system)] if system is not None else []
    return head + [Message(role=r, content=c) for r, c in zip(roles, contents, strict=False)]


def text(turns: list[Turn]) -> list[tuple[str, str]]:
    return [(TOKENIZER.decode(t.source), TOKENIZER.decode(t.target)) for t in turns]


def test_chat_with_a_system_message() -> None:
    turns = encode_turns(messages("<|video|>what ?", "red", "why ?", "", system="watch"), TOKENIZER)
    user, assistant = HEADER.format("user"), HEADER.format("assistant")
    assert text(turns) == [
        (f"<|begin_of_text|>{HEADER.format('system')}watch<|eot_id|>{user}<|video|>what ?<|eot_id|>{assistant}", "red<|eot_id|>"),
        (f"{user}why ?<|eot_id|>{assistant}", "<|eot_id|>"),
    ]


def test_an_empty_system_message_leaves_no_trace() -> None:
    assert encode_turns(messages("a", "b", system=""), TOKENIZER) == encode_turns(messages("a", "b"), TOKENIZER)


def test_pretraining_is_text_and_its_end() -> None:
    turns = encode_turns(messages("", "<|image|>a blue flag"), TOKENIZER, "mllama_pretrain")
    assert text(turns) == [("<|begin_of_text|>", "<|image|>a blue flag<|end_of_text|>")]


def test_no_merge_crosses_from_the_header_into_the_answer() -> None:
    turn = encode_turns(messages("a", "\nb"), TOKENIZER)[0]
    assert turn.source == encode_turns(messages("a", "c"), TOKENIZER)[0].source


def test_a_prompt_ends_where_the_reply_begins() -> None:
    prompt = encode_prompt(messages("what ?", "red", "why ?"), TOKENIZER)
    whole = encode_turns(messages("what ?", "red", "why ?", "so"), TOKENIZER)
    assert prompt == whole[0].source + whole[0].target + whole[1].source


def test_a_reply_can_be_begun() -> None:
    prompt = encode_prompt(messages("", "<|image|>a"), TOKENIZER, "mllama_pretrain")
    assert TOKENIZER.decode(prompt) == "<|begin_of_text|><|image|>a"


def test_an_interruption_is_what_training_puts_between_two_turns() -> None:
    turns = encode_turns(messages("", "red ba", "stop", ""), TOKENIZER)
    assert encode_interruption("stop", TOKENIZER) == [TOKENIZER.eot_id, *turns[1].source]


@pytest.mark.parametrize("roles", [["assistant"], ["user"], ["user", "user"], ["system"], [], ["user", "assistant", "system"]])
def test_roles_must_alternate(roles: list[str]) -> None:
    with pytest.raises(InputError, match="must alternate"):
        encode_turns([Message(role=r, content="x") for r in roles], TOKENIZER)


def test_unknown_templates_are_refused() -> None:
    with pytest.raises(InputError, match="template is 'chatml'"):
        encode_turns(messages("a", "b"), TOKENIZER, "chatml")


@pytest.mark.parametrize(
    ("source", "target", "budget", "expected"),
    [
        (10, 5, 100, (10, 5)),  # all fits
        (90, 20, 50, (30, 20)),  # a short answer is kept whole
        (10, 90, 50, (10, 40)),  # a short question is kept whole
        (60, 60, 60, (30, 30)),  # both shrink in proportion
        (30, 90, 40, (10, 30)),
    ],
)
def test_how_a_turn_is_cut(source: int, target: int, budget: int, expected: tuple[int, int]) -> None:
    assert shared_lengths(source, target, budget) == expected


@given(
    lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=5),
    limit=st.integers(1, 120),
)
def test_truncation_keeps_beginnings_within_the_limit(lengths: list[tuple[int, int]], limit: int) -> None:
    turns = [Turn(list(range(a)), list(range(100, 100 + b))) for a, b in lengths]
    kept = truncate_turns(turns, limit)
    assert sum(len(t.source) + len(t.target) for t in kept) <= limit
    for whole, part in zip(turns, kept, strict=False):
        assert part.source == whole.source[: len(part.source)] and part.target == whole.target[: len(part.target)]
    if sum(a + b for a, b in lengths) <= limit:
        assert kept == turns
