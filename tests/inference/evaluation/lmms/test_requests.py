"""Requests of lmms-eval to questions, and rounds, without lmms-eval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import inference.evaluation.lmms as plug_in
from inference.evaluation.harness.media import Clip
from inference.evaluation.harness.question import Decoding, Question
from inference.evaluation.harness.settings import HarnessSettings
from inference.evaluation.lmms.requests import Decodings, chat_rounds, clips_of, play_rounds, simple_rounds, turns_of
from model.errors import InputError

PICTURE = np.zeros((4, 4, 3), dtype=np.uint8)
DECODING = Decoding()


def test_visuals_in_every_nesting() -> None:
    """None, one, a list, a list of frames as one clip, a list of lists of dictionaries."""
    assert clips_of(None) == []
    assert len(clips_of(PICTURE)) == 1
    assert len(clips_of([PICTURE, None, PICTURE])) == 2
    assert len(clips_of([[PICTURE, PICTURE], PICTURE])) == 2
    assert len(clips_of([[{"image": PICTURE}, {"image": PICTURE}]])) == 2


def test_messages_become_turns() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "image", "url": PICTURE}, {"type": "text", "text": "b"}]
    found = turns_of([{"role": "system", "content": "s"}, {"role": "user", "content": content}])
    assert found[0].pieces == ("s",)
    assert [piece if isinstance(piece, str) else type(piece) for piece in found[1].pieces] == ["a", Clip, "b"]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "without messages"),
        ([{"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}], "cannot hear"),
        ([{"role": "user", "content": [{"type": "smell"}]}], "type 'smell'"),
    ],
)
def test_messages_that_are_refused(messages: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        turns_of(messages)


def said(question: Question) -> str:
    return "".join(piece for piece in question.turns[-1].pieces if isinstance(piece, str))


def test_rounds_end_when_each_task_says_so() -> None:
    """One conversation of one round, one of three; what the task hands back comes again, and its answers are the result."""

    def doc_to_text(doc: int, previous_output: list[str], round_idx: int, previous_round_info: Any) -> Any:
        if round_idx == doc:
            return None, None, True, [*previous_output, "end"], None
        assert previous_round_info == (None if round_idx == 1 else f"info {round_idx - 1}")
        return [PICTURE], f"{previous_output[-1]}+{round_idx}", False, previous_output, f"info {round_idx}"

    def talk(rounds: int) -> Any:
        return simple_rounds(lambda: Question.ask([], f"first of {rounds}", DECODING), doc_to_text, rounds, DECODING)

    played: list[int] = []

    def answer(questions: Any) -> list[str]:
        played.append(len(questions))
        return [f"<{said(question)}>" for question in questions]

    found = play_rounds([talk(1), talk(3)], answer)
    assert found == [["<first of 1>", "end"], ["<first of 3>", "<<first of 3>+1>", "<<<first of 3>+1>+2>", "end"]]
    assert played == [2, 1, 1]


def test_rounds_of_messages() -> None:
    def doc_to_messages(doc: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": f"{doc} {more.get('round_idx', 0)}"}]
        if not more:
            return messages
        over = more["round_idx"] == 2
        return (None if over else messages), over, more["previous_output"], None

    (found,) = play_rounds([chat_rounds(doc_to_messages, "x", DECODING)], lambda questions: [said(q) for q in questions])
    assert found == ["x 0", "x 1"]


def test_a_task_of_one_round_ends_by_itself() -> None:
    """What returns no rounds is asked once."""
    first = simple_rounds(lambda: Question.ask([], "a", DECODING), lambda doc, **more: "a", None, DECODING)
    chat = chat_rounds(lambda doc, **more: [{"role": "user", "content": "a"}], None, DECODING)
    assert play_rounds([first, chat], lambda questions: ["b"] * len(questions)) == [["b"], ["b"]]


def test_a_task_that_never_ends_is_ended() -> None:
    endless = simple_rounds(
        lambda: Question.ask([], "a", DECODING), lambda doc, **more: (None, "a", False, None, None), None, DECODING
    )
    with pytest.raises(InputError, match="more than 1000 rounds"):
        play_rounds([endless], lambda questions: ["b"] * len(questions))


def test_a_document_asked_again_gets_another_seed() -> None:
    decodings = Decodings(HarnessSettings(checkpoint="hf", seed=7))
    sampled = {"do_sample": True}
    seeds = [decodings.of(sampled, 0, "task", "test").sampling.seed for _ in range(3)]
    assert seeds == [7, 8, 9]
    assert decodings.of(sampled, 1, "task", "test").sampling.seed == 7


def test_the_plug_in_is_silent_without_lmms_eval() -> None:
    """Importing it needs nothing; the manifest says what is missing."""
    with pytest.raises(AttributeError, match="no attribute MODELS"):
        _ = plug_in.MODELS
    with pytest.raises(InputError, match=r"pip install 'moss-train\[lmms\]'"):
        _ = plug_in.MANIFEST
