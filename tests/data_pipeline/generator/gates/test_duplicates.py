"""Rows that are nearly the same: estimates beside exact shares, planted copies, memory and time of many rows."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.generator.gates.duplicates import MINIMA, SignatureFile, minima, near_duplicates, read_signatures, signature
from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance


def dialogue(texts: list[str], asked: str = "What do you see?", shift: float = 0.0) -> Dialogue:
    utterances = tuple(Utterance(t=shift + i, text=text, evidence=(0.0, 0.0)) for i, text in enumerate(texts))
    times = tuple(float(i) for i in range(30))
    return Dialogue(id="x", frame_times=times, fps=1.0, users=(UserTurn(t=0.5, text=asked),), utterances=utterances)


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(f"w{rng.randrange(400)}" for _ in range(words))


def test_the_estimate_is_the_share_of_common_elements() -> None:
    rng = random.Random(0)
    errors = []
    for trial in range(60):
        common = rng.randrange(10, 200)
        a = {f"{trial} {i}" for i in range(200)}
        b = {f"{trial} {i}" for i in range(200 - common, 400 - common)}
        exact = len(a & b) / len(a | b)
        errors.append(float((minima(a) == minima(b)).mean()) - exact)
    assert np.abs(errors).max() < 4 / np.sqrt(MINIMA) / 2 + 0.01  # four standard errors of a share of 64
    assert abs(np.mean(errors)) < 0.03


@given(st.sets(st.text(max_size=8), min_size=1, max_size=20))
def test_order_does_not_matter(elements: set[str]) -> None:
    assert (minima(sorted(elements)) == minima(sorted(elements, reverse=True))).all()


@given(st.randoms(use_true_random=False), st.integers(1, 5), st.integers(1, 4))
def test_one_of_each_family_stays_whatever_the_order(rng: random.Random, families: int, copies: int) -> None:
    rows = [(family, sentence(random.Random(family), 60)) for family in range(families) for _ in range(copies)]
    rng.shuffle(rows)
    signatures = np.stack([signature(dialogue([text])) for _, text in rows])
    dropped = near_duplicates(signatures, 0.9)
    assert sorted(rows[i][0] for i in range(len(rows)) if i not in dropped) == list(range(families))
    for row, earlier in dropped.items():
        assert earlier < row and rows[row][0] == rows[earlier][0]


def test_changed_copies_are_found_and_others_are_not() -> None:
    rng = random.Random(3)
    originals = [sentence(rng, 80) for _ in range(40)]
    copies = [text.replace(text.split()[40], "changed", 1) for text in originals]  # 3 of 80 elements differ
    signatures = np.stack([signature(dialogue([text])) for text in originals + copies])
    dropped = near_duplicates(signatures, 0.75)
    assert dropped == {40 + i: i for i in range(40)}


def test_who_says_it_counts_and_when_does_not() -> None:
    said = "the red ball leaves the table again and falls"
    plain, late = signature(dialogue([said])), signature(dialogue([said], shift=9.0))
    asked = signature(dialogue(["What do you see?"], asked=said))
    assert (plain == late).all() and (plain == asked).mean() < 0.6


def test_a_chain_of_parents_ends_at_a_row_that_stays() -> None:
    rng = random.Random(1)
    words = sentence(rng, 60).split()
    rows = [" ".join(words[i : i + 40]) for i in range(0, 20, 2)]  # each is like its neighbours, the ends are not alike
    dropped = near_duplicates(np.stack([signature(dialogue([text])) for text in rows]), 0.7)
    for row in dropped:
        steps = 0
        while row in dropped:
            row, steps = dropped[row], steps + 1
            assert steps < len(rows)
    assert 0 not in dropped


def test_files_of_parts_are_read_in_order(tmp_path: Path) -> None:
    texts = [["red ball appears."], ["blue ball leaves."], []]
    for number, rows in enumerate((texts[:2], texts[2:], [])):
        file = SignatureFile(tmp_path / str(number))
        for row in rows:
            file.add(dialogue(row))
        file.close()
    found = read_signatures([tmp_path / str(n) for n in range(3)])
    assert found.shape == (3, MINIMA)
    assert (found == np.stack([signature(dialogue(row)) for row in texts])).all()
    assert near_duplicates(read_signatures([]), 0.8) == {}


def test_ten_thousand_rows_that_share_a_band_take_seconds() -> None:
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 2**32, (10_000, MINIMA), dtype=np.uint32)
    signatures[:, :4] = 7  # all fall into one bucket, and none is like another
    begin = time.process_time()
    signatures[9_000:] = signatures[:1_000]
    assert near_duplicates(signatures, 0.8) == {9_000 + i: i for i in range(1_000)}
    assert time.process_time() - begin < 10
