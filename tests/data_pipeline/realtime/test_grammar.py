"""The automaton: what it takes, what it refuses, and where it says so."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from data_pipeline.realtime.grammar import (
    PIECES,
    STATES,
    TRANSITIONS,
    Piece,
    StreamGrammar,
    check_messages,
    pieces_of_tokens,
    read_stream,
)
from data_pipeline.schema import Message
from data_pipeline.text.realtime import swap_frames
from data_pipeline.text.template import encode_turns
from tests.data_pipeline.realtime.dialogues import tokenizer

F, S = "<|video|>", "<|silence|>"


def turns(*contents: str) -> list[Message]:
    pairs = ([Message(role="user", content=""), Message(role="assistant", content=content)] for content in contents)
    return list(itertools.chain.from_iterable(pairs))


@pytest.mark.parametrize(
    "contents",
    [
        (S,),
        (S + F + S,),
        (S + F + "a" + S + F + S,),
        (S + F + "a" + F + " b" + S,),
        (S + F + "a" + F + S + F + " b" + S,),
        (S + F + "cut", S + F + S),
        (S + F + "cut", S, S + F + "b" + S),
    ],
)
def test_what_is_rendered_is_accepted(contents: tuple[str, ...]) -> None:
    assert check_messages([Message(role="system", content="any <|silence|>"), *turns(*contents)]) == []


@pytest.mark.parametrize(
    ("contents", "where", "state", "found", "expected"),
    [
        ((S + F + F + S,), "messages[1] character 20", "frame", "frame", ("silence", "text")),
        ((S + F,), "messages[1] end", "frame", "end", ("silence", "text")),
        ((S + F + S + S,), "messages[1] character 31", "quiet", "silence", ("frame", "end")),
        ((S + F + S + "a" + S,), "messages[1] character 31", "quiet", "text 'a'", ("frame", "end")),
        ((S + F + S, "a" + S + F + S), "messages[3] character 0", "opened", "text 'a'", ("silence",)),
        ((F + S,), "messages[1] character 0", "opened", "frame", ("silence",)),
        (("",), "messages[1] end", "opened", "end", ("silence",)),
        ((S + F + "a<|...|>b" + S,), "messages[1] character 21", "speaking", "special '<|...|>'", None),
    ],
)
def test_what_has_no_place_is_told(
    contents: tuple[str, ...], where: str, state: str, found: str, expected: tuple[str, ...] | None
) -> None:
    fault = check_messages(turns(*contents))[0]
    assert (fault.where, fault.state, fault.found) == (where, state, found)
    assert expected is None or fault.expected == expected
    assert fault.where in str(fault) and " or ".join(fault.expected) in str(fault)


def test_roles_that_do_not_alternate_are_told() -> None:
    silent = Message(role="assistant", content=S)
    assert [fault.state for fault in check_messages([silent])] == ["start"]
    assert [fault.found for fault in check_messages([*turns(S), silent])] == ["silence"]
    assert [fault.state for fault in check_messages([])] == ["start"]
    user = Message(role="user", content="?")
    assert [fault.expected for fault in check_messages([user, user, silent])] == [("silence",)]


def test_lenient_takes_turns_that_begin_with_words_a_frame_or_nothing() -> None:
    for content in ("a" + S, F + S, ""):
        assert check_messages(turns(content), "lenient") == [] != check_messages(turns(content))


def test_the_automaton_goes_on_behind_a_fault() -> None:
    faults = check_messages(turns(S + F + F + "a" + S + S + F + S))
    assert [fault.found for fault in faults] == ["frame", "silence"]


def test_every_transition_is_between_known_states_and_reachable() -> None:
    for moves in TRANSITIONS.values():
        assert {state for state, _ in moves} <= set(STATES) and set(moves.values()) <= set(STATES)
        assert {piece for _, piece in moves} <= set(PIECES)
        reached, frontier = {"start"}, ["start"]
        while frontier:
            state = frontier.pop()
            new = {to for (at, _), to in moves.items() if at == state} - reached
            reached |= new
            frontier += new
        assert reached == set(STATES)
    grammar = StreamGrammar()
    assert grammar.expected() == ("user",)
    assert grammar.read(Piece("user", "here")) is None and grammar.expected() == ("silence",)


def test_tokens_are_read_like_their_text() -> None:
    for content in (S + F + "a ball" + F + " leaves." + S, S + F + S + S, F + "a", S + F + S + "<|...|>" + F + S):
        messages = [Message(role="system", content="Watch <|silence|>."), *turns(content, S + F + S)]
        ids = [i for turn in encode_turns(messages, tokenizer()) for i in (*turn.source, *turn.target)]
        of_text, of_tokens = check_messages(messages), read_stream(pieces_of_tokens(ids, tokenizer()))
        assert [(f.state, f.expected) for f in of_text] == [(f.state, f.expected) for f in of_tokens]
        assert all(fault.where.startswith("token ") for fault in of_tokens)


def test_all_of_the_reference_s_rows_are_accepted(reference_data: Path) -> None:
    """Leniently: 33 of their 233 turns begin with the answer's words, no other place differs from what we render."""
    rows = json.loads((reference_data / "mllm_realtime_sft_demo.json").read_text())
    begun = 0
    for number, row in enumerate(rows):
        messages = [Message(**message) for message in row["messages"]]
        assert check_messages(messages, "lenient") == []
        strict = check_messages(messages)
        assert all(fault.state == "opened" and fault.found.startswith("text") for fault in strict)
        begun += len(strict)
        ids = [i for turn in encode_turns(messages, tokenizer()) for i in (*turn.source, *turn.target)]
        assert read_stream(pieces_of_tokens(ids, tokenizer()), "lenient") == []
        swap_frames(ids, list(ids), tokenizer(), random.Random(number))
        assert read_stream(pieces_of_tokens(ids, tokenizer()), "lenient") == []
    assert len(rows) == 100 and begun == 33
