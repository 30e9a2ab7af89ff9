"""Questions about a whole clip: colour, kind and direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.world.palette import COLOURS, DIRECTIONS, KINDS, cell_words
from data_pipeline.world.scene import Clip

ASK = {"colour": "Which colour?", "kind": "Which kind?", "direction": "Which way?"}
CHOICES = {"colour": COLOURS, "kind": KINDS, "direction": DIRECTIONS}


def questions(clip: Clip, direction: str) -> list[dict[str, Any]]:
    """The three questions as plain values (fields of a scenario's question: text, answer, kind, choices).

    A direction is answered as first cell, last cell, direction: a bare direction word is not learned in minutes.
    """
    thing = clip.things[0]
    first, last = (cell_words(int(thing.x[i]), int(thing.y[i]), clip.size) for i in (0, -1))
    answers = {
        "colour": COLOURS[int(thing.colour[0])],
        "kind": KINDS[thing.kind],
        "direction": f"{first} to {last}, going {direction}",
    }
    return [{"text": ASK[k], "answer": answers[k], "kind": k, "choices": list(CHOICES[k])} for k in ASK]


def question_sample(clip: Clip, direction: str) -> Sample:
    """A chat of three turns in an order drawn from the clip's seed; the video stands before the first question."""
    asked = questions(clip, direction)
    order = np.random.default_rng((clip.seed, 2)).permutation(len(asked))
    messages = []
    for turn, index in enumerate(order):
        text = asked[index]["text"]
        messages.append(Message(role="user", content=f"<|video|>{text}" if turn == 0 else text))
        messages.append(Message(role="assistant", content=asked[index]["answer"]))
    return Sample(
        kind="video",
        messages=messages,
        media=[Media(type="video", file="0.mp4", fps=1.0, min_frames=1, max_frames=clip.num_frames)],
        meta={"questions": asked},
    )
