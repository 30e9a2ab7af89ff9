"""Rows of questions, with earlier questions and their true answers before them."""

from __future__ import annotations

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_prompt
from data_pipeline.text.tokenizer import IMAGE, VIDEO, Tokenizer
from inference.evaluation.schema import Question, Scenario
from model.errors import InputError


def dialogue_rows(scenario: Scenario, question: Question, num_frames: int, tokenizer: Tokenizer) -> list[int]:
    """Ids of a question about the first `num_frames` shown frames, which stand before the dialogue's first question.

    Raises:
        InputError: a text holds a marker of frames.
    """
    earlier = [scenario.questions[i] for i in question.after]
    return clip_rows(scenario, [(q.text, q.answer) for q in earlier], question.text, num_frames, tokenizer)


def clip_rows(scenario: Scenario, history: list[tuple[str, str]], text: str, num_frames: int, tokenizer: Tokenizer) -> list[int]:
    """Ids of a dialogue about one clip, up to where the reply begins.

    Args:
        history: (question, answer) of the turns before.
        text: the question.
        num_frames: image tokens before the first question.

    Raises:
        InputError: a text holds a marker of frames.
    """
    for said in (text, *(part for turn in history for part in turn)):
        for marker in (VIDEO, IMAGE):
            if marker in said:
                raise InputError(f"scenario {scenario.id}: {said!r} contains {marker}, which stands for frames; leave it out")
    messages = [Message(role="system", content=scenario.system)] if scenario.system else []
    for question, answer in history:
        messages += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    messages.append(Message(role="user", content=text))
    first = next(message for message in messages if message.role == "user")
    messages[messages.index(first)] = Message(role="user", content=f"{VIDEO}{first.content}")
    rows: list[int] = []
    for token in encode_prompt(messages, tokenizer):
        rows += [tokenizer.image_id] * num_frames if token == tokenizer.video_id else [token]
    return rows
