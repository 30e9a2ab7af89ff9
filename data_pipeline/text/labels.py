"""From turns to rows: expanded frames, shifted targets, positions and token classes of one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_pipeline.packing.batch import IGNORE_INDEX, TOKEN_CLASSES
from data_pipeline.text.template import Turn
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError

IGNORED, TEXT, SILENCE, FIRST_ANSWER, AFTER_INTERRUPTION = range(len(TOKEN_CLASSES))

Int64 = npt.NDArray[np.int64]


@dataclass
class Rows:
    """One sample, every frame one image token. All arrays have length T except `frame_rows` [F]."""

    input_ids: Int64
    labels: Int64
    """Unshifted: the label of row t is the token at t, or -100."""
    frame_rows: Int64
    """Row of each frame's image token, which is also the frame's position."""

    @property
    def targets(self) -> Int64:
        """Shifted: what row t must predict."""
        shifted = np.full_like(self.labels, IGNORE_INDEX)
        shifted[:-1] = self.labels[1:]
        return shifted

    @property
    def visible_frames(self) -> Int64:
        """Frames that row t may look at: those whose image token stands at t or before."""
        return np.searchsorted(self.frame_rows, np.arange(len(self.input_ids)), side="right").astype(np.int64)


def flatten_turns(turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
    """Ids and labels of a conversation with media markers unexpanded: targets are learned, in every turn."""
    ids: list[int] = []
    labels: list[int] = []
    for turn in turns:
        ids += turn.source + turn.target
        labels += [IGNORE_INDEX] * len(turn.source) + turn.target
    return ids, labels


def expand_markers(ids: Sequence[int], labels: Sequence[int], counts: Sequence[int], tokenizer: Tokenizer) -> Rows:
    """Replace marker i (image or video, in text order) by `counts[i]` image tokens without labels.

    Raises:
        InputError: the number of markers and of counts differ.
    """
    markers = [i for i, token in enumerate(ids) if token in (tokenizer.video_id, tokenizer.image_id)]
    if len(markers) != len(counts):
        raise InputError(f"the text has {len(markers)} media markers but the media fill {len(counts)}")
    repeats = np.ones(len(ids), dtype=np.int64)
    repeats[markers] = np.asarray(counts, dtype=np.int64)
    out_ids = np.asarray(ids, dtype=np.int64)
    out_labels = np.asarray(labels, dtype=np.int64)
    out_ids[markers] = tokenizer.image_id
    out_labels[markers] = IGNORE_INDEX
    out_ids = np.repeat(out_ids, repeats)
    return Rows(out_ids, np.repeat(out_labels, repeats), np.flatnonzero(out_ids == tokenizer.image_id).astype(np.int64))


def token_classes(rows: Rows, tokenizer: Tokenizer, *, realtime: bool = False) -> npt.NDArray[np.int8]:
    """int8 [T]: class of every row's target.

    The first answer token is the first text token behind a silence or the start of a turn, frames between them
    or not; a token that only closes a turn is plain text.

    Args:
        realtime: whether turns are ended by prompts, so that one can cut an answer off (`after_interruption`).
    """
    is_frame = rows.input_ids == tokenizer.image_id
    last_token = np.maximum.accumulate(np.where(is_frame, -1, np.arange(len(is_frame))))  # newest row that is no frame
    known = last_token >= 0
    before = np.maximum(last_token, 0)
    opens = known & ((rows.input_ids[before] == tokenizer.silence_id) | (rows.labels[before] == IGNORE_INDEX))
    targets = rows.targets
    closing = (targets == tokenizer.eot_id) | (targets == tokenizer.eos_text_id)
    classes = np.where(opens & ~closing, FIRST_ANSWER, TEXT)
    if realtime:
        classes[_after_interruptions(rows, tokenizer) - 1] = AFTER_INTERRUPTION
    classes = np.where(targets == tokenizer.silence_id, SILENCE, classes)
    return np.where(targets == IGNORE_INDEX, IGNORED, classes).astype(np.int8)


def _after_interruptions(rows: Rows, tokenizer: Tokenizer) -> Int64:
    """Rows of the tokens that answer a prompt which came while the model was speaking.

    A prompt interrupts where the token before the one that closes the model's turn is a spoken word: a finished answer
    has a silence behind it. The answer goes on to its first silence or the end of its turn, over frames.
    """
    places = np.flatnonzero(rows.input_ids != tokenizer.image_id)  # rows that are no frame
    ids, learned = rows.input_ids[places], rows.labels[places] != IGNORE_INDEX
    closes = ids == tokenizer.eot_id
    spoken = learned & ~closes & (ids != tokenizer.silence_id) & (ids != tokenizer.eos_text_id)
    cuts = np.flatnonzero(closes[1:] & spoken[:-1]) + 1
    quiet = np.append(np.flatnonzero(~spoken), len(ids))
    answers = []
    for cut in cuts:
        starts = np.flatnonzero(learned[cut + 1 :])  # the header and the prompt are not learned
        if len(starts):
            start = cut + 1 + int(starts[0])
            if closes[cut + 1 : start].sum() > 1:  # more than the prompt's end lies between: a turn without a word
                continue
            answers.append(places[start : quiet[np.searchsorted(quiet, start)]])
    return np.concatenate(answers) if answers else np.empty(0, dtype=np.int64)
