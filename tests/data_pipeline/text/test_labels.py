"""Labels, positions, visible frames and token classes."""

from __future__ import annotations

import itertools
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.schema import Message
from data_pipeline.text.labels import (
    AFTER_INTERRUPTION,
    FIRST_ANSWER,
    IGNORED,
    SILENCE,
    TEXT,
    expand_markers,
    flatten_turns,
    token_classes,
)
from data_pipeline.text.realtime import swap_frames, unlabel_end_of_turn
from data_pipeline.text.template import encode_turns
from tests.data_pipeline.helpers import tokenizer

T = tokenizer()
IMG, S, V, EOT = T.image_id, T.silence_id, T.video_id, T.eot_id
W = [T.id_of(c) for c in "abcde"]  # five plain tokens


def test_the_worked_example_of_a_five_second_dialogue() -> None:
    """The specification's own: a header of 9 rows, then S I S I w1 w2 I w3 w4 w5 I S I S eot."""
    header = [T.bos_id, T.start_header_id, 5, T.end_header_id, 6, EOT, T.start_header_id, 7, T.end_header_id, 8]
    answer = [S, V, S, V, W[0], W[1], V, W[2], W[3], W[4], V, S, V, S, EOT]
    ids, labels = header + answer, [IGNORE_INDEX] * len(header) + list(answer)
    unlabel_end_of_turn(labels, T)
    rows = expand_markers(ids, labels, [1] * 5, T)
    assert rows.input_ids.tolist() == header + [IMG if t == V else t for t in answer]
    hidden = IGNORE_INDEX
    assert rows.labels[10:].tolist() == [S, hidden, S, hidden, W[0], W[1], hidden, W[2], W[3], W[4], hidden, S, hidden, S, hidden]
    assert rows.frame_rows.tolist() == [11, 13, 16, 20, 22]
    assert rows.visible_frames.tolist() == [0] * 11 + [1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 5]
    assert rows.targets[9:].tolist() == [*rows.labels[10:], IGNORE_INDEX]
    classes = token_classes(rows, T)
    assert classes[9] == SILENCE  # the row before the first token of the turn
    assert classes[11] == SILENCE and classes[13] == FIRST_ANSWER and classes[14] == TEXT
    assert classes[16] == TEXT  # a frame in the middle of the sentence does not open an answer
    assert classes[24] == IGNORED


def rows_of(*contents: str, template: str = "mllama", counts: list[int] | None = None):  # type: ignore[no-untyped-def]
    roles = ["user", "assistant"] * len(contents)
    turns = encode_turns([Message(role=r, content=c) for r, c in zip(roles, contents, strict=False)], T, template)
    ids, labels = flatten_turns(turns)
    return expand_markers(ids, labels, counts or [], T)


def learned(rows) -> str:  # type: ignore[no-untyped-def]
    return T.decode(rows.targets[rows.targets != IGNORE_INDEX])


def test_chat_learns_every_answer_and_its_end() -> None:
    rows = rows_of("<|video|>what ?", "red ball", "why ?", "so", counts=[3])
    assert learned(rows) == "red ball<|eot_id|>so<|eot_id|>"
    assert len(rows.frame_rows) == 3 and np.diff(rows.frame_rows).tolist() == [1, 1]


def test_pretraining_learns_the_text_but_no_frame() -> None:
    rows = rows_of("", "<|image|>a flag<|image|>a ball", template="mllama_pretrain", counts=[1, 1])
    assert learned(rows) == "a flaga ball<|end_of_text|>"
    assert (rows.labels[rows.frame_rows] == IGNORE_INDEX).all()


def test_first_answers_open_turns_and_follow_silence() -> None:
    rows = rows_of("<|video|>what ?", "red ball<|silence|>red<|silence|>", counts=[2])
    classes = token_classes(rows, T)
    targets = rows.targets
    first = [int(targets[i]) for i in np.flatnonzero(classes == FIRST_ANSWER)]
    assert T.decode(first) == "redred"
    assert (targets[classes == SILENCE] == S).all() and (classes == SILENCE).sum() == 2
    assert classes[np.flatnonzero(targets == EOT)].tolist() == [TEXT]


def dialogue(*turns: list[int]) -> tuple[list[int], list[int]]:
    """Ids and labels of real-time turns behind headers of five tokens; closing tokens are not learned."""
    header = [T.start_header_id, W[0], T.end_header_id, EOT, T.end_header_id]
    ids = [i for turn in turns for i in (*header, *turn, EOT)]
    labels = [label for turn in turns for label in (*[IGNORE_INDEX] * 5, *turn, IGNORE_INDEX)]
    return ids, labels


def classes_of_turns(*turns: list[int], realtime: bool = True) -> list[tuple[int, int]]:
    """Target and class of the rows that have a target."""
    ids, labels = dialogue(*turns)
    rows = expand_markers(ids, labels, [1] * ids.count(V), T)
    classes = token_classes(rows, T, realtime=realtime)
    return [(int(t), int(c)) for t, c in zip(rows.targets, classes, strict=True) if t != IGNORE_INDEX]


def test_a_prompt_in_the_middle_of_speech_opens_a_class_of_its_own() -> None:
    a, b, c, d, _ = W
    cut = [S, V, a, b, V]  # a frame came last, the words were still going on
    answer = [c, V, d, S, V, a]
    assert classes_of_turns(cut, answer)[3:] == [
        (c, AFTER_INTERRUPTION), (d, AFTER_INTERRUPTION), (S, SILENCE), (a, FIRST_ANSWER)
    ]  # fmt: skip
    assert classes_of_turns([S, V, a, b, S, V], answer)[4:6] == [(c, FIRST_ANSWER), (d, TEXT)]  # the answer was finished
    assert classes_of_turns(cut, [S, *answer])[3:6] == [(S, SILENCE), (c, FIRST_ANSWER), (d, TEXT)]  # it stays silent first
    assert classes_of_turns(cut, answer, realtime=False)[3:5] == [(c, FIRST_ANSWER), (d, TEXT)]
    assert classes_of_turns(cut, [c, V], [d])[3:] == [(c, AFTER_INTERRUPTION), (d, AFTER_INTERRUPTION)]  # cut off twice
    assert classes_of_turns(cut, []) == classes_of_turns(cut)
    assert classes_of_turns(cut, [], [c])[-1] == (c, FIRST_ANSWER)  # the prompt before it met silence


@given(turns=st.lists(st.lists(st.sampled_from([V, S, *W[:2]]), max_size=8), min_size=1, max_size=4))
def test_only_words_behind_a_cut_answer_change_their_class(turns: list[list[int]]) -> None:
    plain_classes, marked = classes_of_turns(*turns, realtime=False), classes_of_turns(*turns)
    changed = [(old, new) for old, new in zip(plain_classes, marked, strict=True) if old != new]
    assert all(new[1] == AFTER_INTERRUPTION and old[1] in (TEXT, FIRST_ANSWER) for old, new in changed)
    words = [[token for token in turn if token != V] for turn in turns]
    expected = 0
    for before, turn in itertools.pairwise(words):
        if before and before[-1] != S:
            expected += turn.index(S) if S in turn else len(turn)
    assert len(changed) == expected


plain = st.sampled_from(W)
stream = st.lists(st.sampled_from([V, S, W[0], W[1], EOT, T.end_header_id]), max_size=40)


@given(tokens=stream, seed=st.integers(0, 5))
def test_swapping_moves_markers_one_token_forward_at_most(tokens: list[int], seed: int) -> None:
    numbered = list(enumerate(tokens))
    ids, labels = list(tokens), [i for i, _ in numbered]  # labels carry the old places
    swap_frames(ids, labels, T, random.Random(seed), 0.5)
    assert [tokens[i] for i in labels] == ids  # ids and labels moved together
    moved = [(old, new) for new, old in enumerate(labels) if old != new]
    for old, new in moved:
        assert new == old - 1 if tokens[old] == V and new < old else new > old
    assert [t for t in ids if t != V] == [t for t in tokens if t != V]
    assert sum(t == V for t in ids) == sum(t == V for t in tokens)


@given(tokens=stream, seed=st.integers(0, 5), probability=st.sampled_from([0.3, 1.0]))
def test_markers_move_within_a_sentence_only(tokens: list[int], seed: int, probability: float) -> None:
    ids, places = list(tokens), list(range(len(tokens)))
    swap_frames(ids, places, T, random.Random(seed), probability)
    moved = [new for new, old in enumerate(places) if ids[new] == V and old > new]
    for new in moved:
        assert new > 0 and ids[new - 1] not in (T.end_header_id, V)
        assert ids[new + 1] == tokens[new] and tokens[new] != S  # it jumped over one token, which is no silence
    assert sorted(ids) == sorted(tokens)
    words = [old for new, old in enumerate(places) if ids[new] != V]
    assert words == sorted(words)


@given(tokens=stream)
def test_without_probability_nothing_moves(tokens: list[int]) -> None:
    ids = list(tokens)
    swap_frames(ids, list(tokens), T, random.Random(0), 0.0)
    assert ids == tokens


def swapped(tokens: list[int]) -> list[int]:
    ids = list(tokens)
    swap_frames(ids, list(tokens), T, random.Random(0), 1.0)
    return ids


def test_which_markers_move() -> None:
    a, b, c = W[:3]
    assert swapped([a, b, V, c]) == [a, V, b, c]  # in the middle of a sentence
    assert swapped([a, S, V, c]) == [a, S, V, c]  # behind a silence
    assert swapped([T.end_header_id, b, V]) == [T.end_header_id, b, V]  # straight behind a header
    assert swapped([V, b, V]) == [V, b, V]  # a single token between two frames stays
    assert swapped([b, V, c]) == [b, V, c]  # there is no token before the one before
    assert swapped([a, b, V, c, a, V]) == [a, V, b, c, V, a]  # each on the sequence that the last one left


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=6), gap=st.integers(0, 3))
def test_visible_frames_follow_the_counting_rule(counts: list[int], gap: int) -> None:
    ids: list[int] = []
    for _ in counts:
        ids += [W[0]] * gap + [V]
    rows = expand_markers(ids, list(ids), counts, T)
    seen = np.cumsum(rows.input_ids == IMG)  # image tokens at or before a row
    assert rows.visible_frames.tolist() == seen.tolist()
    assert len(rows.frame_rows) == sum(counts)
    assert len(rows.input_ids) == len(ids) + sum(counts) - len(counts)
    assert (rows.labels[rows.frame_rows] == IGNORE_INDEX).all()
