"""E.T. Bench's captions with their times: readings, and scores worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.schema import Question, Scenario, Trace
from inference.evaluation.suites.etbench import SUITE
from inference.evaluation.suites.etbench.captions import Caption, detection, likeness, official_captions, strict_captions
from inference.evaluation.suites.etbench.scorer import score_with
from inference.evaluation.suites.etbench.similarity import Similarity, by_words, installed
from inference.evaluation.suites.etbench.spans import Span

WORDS = Similarity("words", by_words)

READINGS: list[tuple[str, list[Caption], int]] = [
    ("0 - 5 seconds, a cat sleeps. 6 - 9 seconds, a dog.", [((0.0, 5.0), "a cat sleeps."), ((6.0, 9.0), "a dog.")], 0),
    # A preface is taken for the first caption, and the last one is lost; times come in order.
    ("Here it is:\n1.5 - 3 seconds, a cat.\n9 - 4 seconds, a dog.", [((1.5, 3.0), "here it is:"), ((4.0, 9.0), "a cat.")], 0),
    ("1.5 - 3 seconds, A cat.\n4 to 9 seconds: a dog.", [((1.5, 3.0), "a cat.")], 2),
    ("Start time: 3 seconds\nEnd time: 8 seconds\nDescription: a ball\n", [((3.0, 8.0), "a ball")], 0),
    ("start time: 3, end time: 8\n* a ball rolls", [((3.0, 8.0), "a ball rolls")], 0),
    ("start time 3, end time 8 a ball rolls", [], 0),  # the script fails
    ("At 30 seconds a cat sleeps. At 50 a dog.", [((10.0, 50.0), "a cat sleeps.")], 0),  # 20 s on both sides, once
    ("At 5 seconds, a cat sleeps", [((5.0, 45.0), "a cat sleeps.")], 0),
    ("At 1:05 a dog barks", [((45.0, 85.0), "At 1:05 a dog barks.")], 0),
    ("From 0:10 to 1:00 a dog barks", [((10.0, 60.0), "From 0:10 to 1:00 a dog barks.")], 0),
    ("10 and 20 seconds, a ball rolls", [((10.0, 20.0), "a ball rolls.")], 0),
    ("a dog: time: 40:3.5 of it: x", [((3.0, 40.0), "a dog: time: 40:3.")], 0),  # sentences end at points
    ("1..2 - 3 seconds, a ball", [], 0),
    ("5 - 6 cat", [((5.0, 6.0), "5 - 6 cat.")], 1),
    ("9 - 4 seconds, a dog", [((4.0, 9.0), "a dog")], 0),
    ("nothing at all", [], 0),
    ("", [], 0),
]
"""Reply, official captions, how many strict ones."""


@pytest.mark.parametrize(("reply", "official", "strict"), READINGS)
def test_captions_in_replies(reply: str, official: list[Caption], strict: int) -> None:
    """`dvc_format` of compute_metrics.py found the same official ones, and the same in 200 000 texts of random pieces."""
    assert official_captions(reply) == official
    assert len(strict_captions(reply)) == strict


def test_strict_captions_are_as_they_were_written() -> None:
    assert strict_captions("1.5 - 3 seconds, A cat.\n\n4 to 9 s: a dog") == [((1.5, 3.0), "A cat."), ((4.0, 9.0), "a dog")]


TRUTH = [[0.0, 10.0], [20.0, 30.0]]
SAID = "0 - 5 seconds, a cat sleeps. 21 - 30 seconds, a dog barks. 50 - 60 seconds, a red ball."


def _question(task: str, source: str) -> Question:
    meta = {"source": source, "truth": TRUTH, "captions": ["A cat sleeps!", "the dog barks"]}
    return Question(text="?", answer="", kind=task, meta=meta)


def test_by_hand() -> None:
    """`dvc_eval` of compute_metrics.py gave F1 0.4, 0.4, 0.2 and 0.2, mean 0.3, for the two samples of activitynet."""
    questions = [_question("dvc", "activitynet"), _question("dvc", "activitynet"), _question("slc", "cook")]
    scenario = Scenario(id="s", fps=1.0, num_frames=60, questions=questions)
    strict = SAID.replace(". ", ".\n")
    trace = Trace(scenario_id="s", mode="offline", answers=[SAID, "nothing here at all", strict])
    metrics = SUITE.aggregate(score_with([(trace, scenario)], WORDS))
    # Overlaps are 5/10 and 9/10. At 0.1 and 0.3: precision 2/3, recall 2/2; at 0.5, which 5/10 does not exceed, and 0.7: 1/3 and
    # 1/2. Halved by the unread reply: F1 of 1/3 and 1/2 0.4, of 1/6 and 1/4 0.2.
    assert metrics["dvc.f1_official"] == pytest.approx(0.3) and metrics["dvc.f1_strict"] == 0.0
    assert metrics["slc.f1_official"] == metrics["slc.f1_strict"] == pytest.approx((2 * 0.8 + 2 * 0.4) / 4)
    assert metrics["captioning.f1_official"] == pytest.approx((0.3 + 0.6) / 2)
    # At 0.1 and 0.3: the same words 1, "a dog barks" with "the dog barks" 2 of 3, the ball with letters 0: 5/9. At 0.5 and 0.7
    # the cat has letters too: 2/9. Official: of read replies alone.
    assert metrics["dvc.word_similarity_official"] == pytest.approx((5 / 9 + 2 / 9) / 2)
    assert metrics["slc.word_similarity_strict"] == pytest.approx(7 / 18) and metrics["dvc.word_similarity_strict"] == 0.0
    assert metrics["dvc.read_official"] == 0.5 and "dvc.similarity_official" not in metrics


def test_the_encoder_names_the_metric_and_sees_each_pair_once() -> None:
    seen: list[tuple[str, str]] = []

    def compare(pairs: list[tuple[str, str]]) -> list[float]:
        seen.extend(pairs)
        return [0.5 for _ in pairs]

    scenario = Scenario(id="s", fps=1.0, num_frames=60, questions=[_question("slc", "cook")])
    trace = Trace(scenario_id="s", mode="offline", answers=[SAID])
    metrics = SUITE.aggregate(score_with([(trace, scenario)], Similarity("official", compare)))  # type: ignore[arg-type]
    assert metrics["slc.similarity_official"] == metrics["captioning.similarity_official"] == 0.5
    assert len(seen) == len(set(seen)) and ("a cat sleeps", "a cat sleeps") in seen


def test_words_by_hand() -> None:
    # 1 of 2 words in common: 1 / sqrt(2 * 2).
    assert by_words([("a cat", "A dog"), ("a cat", "cat, a"), ("", "x"), ("a a", "a b")]) == pytest.approx(
        [0.5, 1, 0, 2 / 8**0.5]
    )


PACKAGE = """
import numpy as np

class SentenceTransformer:
    def __init__(self, name, local_files_only):
        assert name == "sentence-transformers/all-MiniLM-L6-v2" and local_files_only
        {failure}

    def encode(self, texts):
        return np.array([[text.count("a"), text.count("b")] for text in texts], dtype=np.float32)
"""


@pytest.mark.parametrize(
    ("failure", "name"), [("", "official"), ("raise OSError('no such files')", "words"), ("import no_such_module", "words")]
)
def test_the_encoder_is_taken_where_it_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str, name: str
) -> None:
    """With sentence-transformers 6.2 and the model's files, `dot_score` of the official code gave the same to six digits."""
    (tmp_path / "sentence_transformers.py").write_text(PACKAGE.format(failure=failure))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sentence_transformers", raising=False)
    installed.cache_clear()
    try:
        found = installed()
        assert found.name == name
        if name == "official":
            # (2, 1) with (0, 3): 3; (1, 0) with itself: 1.
            assert found.compare([("aab", "bbb"), ("a", "a")]) == [3.0, 1.0] and found.compare([]) == []
    finally:
        installed.cache_clear()
        monkeypatch.delitem(sys.modules, "sentence_transformers", raising=False)


_spans = st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda pair: (float(pair[0]), float(sum(pair))))


@given(st.lists(_spans, min_size=1, max_size=4), st.lists(_spans, min_size=1, max_size=4), st.sampled_from([0.1, 0.5, 0.7]))
def test_precision_and_recall_are_shares_that_change_places_with_the_truth(a: list[Span], b: list[Span], least: float) -> None:
    precision, recall = detection([(span, "x") for span in a], b, least)
    assert 0.0 <= precision <= 1.0 and 0.0 <= recall <= 1.0
    assert detection([(span, "x") for span in b], a, least) == (recall, precision)
    said, truth = [(span, "x") for span in a], [(span, "x") for span in b]
    assert 0.0 <= likeness(said, truth, WORDS, "s") <= 1.0 and likeness(truth, truth, WORDS, "s") == pytest.approx(1.0)
