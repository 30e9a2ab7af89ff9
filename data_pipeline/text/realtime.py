"""Real-time dialogues as tokens: what training does to frames and closing tokens, and how fast a dialogue speaks."""

from __future__ import annotations

import random

from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.text.tokenizer import Tokenizer


def swap_frames(ids: list[int], labels: list[int], tokenizer: Tokenizer, rng: random.Random, probability: float = 0.5) -> None:
    """Let frames that arrive in the middle of a sentence arrive one token earlier, in place.

    Works from left to right on the changing sequence with `<|video|>` markers unexpanded. A marker stays where
    the token before it is a silence, or where the one before that is the end of a header or another marker.
    """
    for i in range(2, len(ids)):
        if ids[i] != tokenizer.video_id or ids[i - 1] == tokenizer.silence_id:
            continue
        if ids[i - 2] in (tokenizer.end_header_id, tokenizer.video_id):
            continue
        if rng.random() < probability:
            ids[i - 1], ids[i] = ids[i], ids[i - 1]
            labels[i - 1], labels[i] = labels[i], labels[i - 1]


def unlabel_end_of_turn(labels: list[int], tokenizer: Tokenizer) -> None:
    """Real-time turns are ended by the next prompt, never by the model: `<|eot_id|>` is not learned, in place."""
    for i, label in enumerate(labels):
        if label == tokenizer.eot_id:
            labels[i] = IGNORE_INDEX


def slot_lengths(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Tokens that are said in each frame's slot of a dialogue, its silence included: the rate at which a model learns to speak.

    Args:
        ids: with one `<|video|>` or `<|image|>` marker a frame. Behind a closing token the user speaks, until the next frame.
    """
    markers = (tokenizer.video_id, tokenizer.image_id)
    ends = (tokenizer.eot_id, tokenizer.eom_id, tokenizer.eos_text_id)
    lengths: list[int] = []
    speaking = False
    for token in ids:
        if token in markers:
            lengths.append(0)
            speaking = True
        elif token in ends:
            speaking = False
        elif speaking:
            lengths[-1] += 1
    return lengths
