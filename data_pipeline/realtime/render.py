"""Dialogues as messages: what a model reads and learns.

Every turn of the assistant begins with `<|silence|>`; a frame is `<|video|>` and what its slot holds: words, then `<|silence|>`
unless they go on in the next slot or are cut off there. A user's turn ends the assistant's and opens another one.
"""

from __future__ import annotations

from data_pipeline.realtime.dialogue import Dialogue
from data_pipeline.realtime.emission import CountTokens
from data_pipeline.realtime.layout import NEAR, slots_of
from data_pipeline.realtime.values import dialogue_to_dict
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.text.tokenizer import SILENCE, VIDEO


def to_messages(dialogue: Dialogue, count_tokens: CountTokens) -> list[Message]:
    """The messages of a dialogue that is laid out.

    The first turn of the user is empty: before anybody speaks, the assistant watches.

    Raises:
        InputError: as `layout.slots_of`.
    """
    messages = [Message(role="system", content=dialogue.system)] if dialogue.system else []
    turn, asked = [SILENCE], ""
    users = sorted(dialogue.users, key=lambda user: user.t)
    arrived = 0
    for slot in slots_of(dialogue, count_tokens):
        time = dialogue.frame_times[slot.frame]
        while arrived < len(users) and users[arrived].t < time - NEAR:
            messages += _exchange(asked, turn)
            turn, asked = [SILENCE], users[arrived].text
            arrived += 1
        turn.append(VIDEO + slot.text + (SILENCE if slot.silent else ""))
    for user in users[arrived:]:
        messages += _exchange(asked, turn)
        turn, asked = [SILENCE], user.text
    return messages + _exchange(asked, turn)


def to_sample(dialogue: Dialogue, count_tokens: CountTokens) -> Sample:
    """A sample of kind realtime whose one file is `0.mp4`, a marker for each frame; the dialogue itself is in its meta.

    Raises:
        InputError: as `layout.slots_of`.
    """
    times = list(dialogue.frame_times)
    return Sample(
        kind="realtime",
        messages=to_messages(dialogue, count_tokens),
        media=[Media(type="video", file="0.mp4", markers="per_frame", frame_times=times, fps=dialogue.fps)],
        source=dialogue.source,
        license=dialogue.license,
        meta={"dialogue": dialogue_to_dict(dialogue)},
    )


def _exchange(asked: str, turn: list[str]) -> list[Message]:
    return [Message(role="user", content=asked), Message(role="assistant", content="".join(turn))]
