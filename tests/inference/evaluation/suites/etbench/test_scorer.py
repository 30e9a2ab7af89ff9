"""Scores of E.T. Bench, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.schema import Question, Scenario, Trace
from inference.evaluation.statistics.condensed import Layout
from inference.evaluation.suites.etbench import SUITE
from inference.evaluation.suites.etbench.scorer import official_choice, score_with
from inference.evaluation.suites.etbench.similarity import Similarity, by_words
from inference.evaluation.suites.etbench.spans import detection_f1, official_spans, overlap, seconds_f1, strict_spans

READINGS: list[tuple[str, list[tuple[float, float]], list[tuple[float, float]]]] = [
    ("The event happens in 3.0 - 7.5 seconds.", [(3.0, 7.5)], [(3.0, 7.5)]),
    ("from 10 to 20 s, and 30-25", [(25.0, 30.0)], [(10.0, 20.0)]),  # one way of writing alone is looked for
    ("3 s to 7 s", [], [(3.0, 7.0)]),
    ("It is 3 to 7.", [(3.0, 7.0)], [(3.0, 7.0)]),
    ("It starts at 4\nand ends at 9.5", [(4.0, 9.5)], []),
    ("Start: 0:01:05\nEnd: 0:02:00", [(0.0, 0.0)], []),  # the first number of each line is the hour
    ("between 0:05 and 1:10", [], [(5.0, 70.0)]),
    ("I saw 3 cats", [], []),
    ("", [], []),
]
"""Reply, official spans, strict ones."""


@pytest.mark.parametrize(("reply", "official", "strict"), READINGS)
def test_times_in_replies(reply: str, official: list[tuple[float, float]], strict: list[tuple[float, float]]) -> None:
    """`tvg_format` of compute_metrics.py, run on these replies, found the same official spans."""
    assert official_spans(reply) == official
    assert strict_spans(reply) == strict


def test_overlaps_by_hand() -> None:
    assert overlap((0.0, 10.0), (5.0, 15.0)) == pytest.approx(5 / 15) and overlap((0.0, 1.0), (2.0, 3.0)) == 0.0
    assert overlap((1.0, 1.0), (1.0, 1.0)) == 0.0
    truth = [(0.0, 10.0), (20.0, 30.0)]
    found = [(0.0, 5.0), (21.0, 30.0), (50.0, 60.0)]  # IoU 0.5 with the first, 0.9 with the second
    # at 0.5: precision 2/3, recall 2/2: 0.8; at 0.7: 1/3 and 1/2: 0.4.
    assert detection_f1(found, truth, 0.5) == pytest.approx(0.8) and detection_f1(found, truth, 0.7) == pytest.approx(0.4)
    # Seconds 0 to 4, 21 to 29 and 50 to 59 are 24, true ones 20, common ones 5 + 9: 28 of 44.
    assert seconds_f1(found, truth) == pytest.approx(28 / 44)
    assert seconds_f1([(40.0, 41.0)], truth) == 0.0


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)).map(lambda p: (min(p), max(p))), min_size=1, max_size=4))
def test_the_truth_itself_is_perfect(spans: list[tuple[float, float]]) -> None:
    if all(end - begin > 0.1 for begin, end in spans):
        assert detection_f1(spans, spans, 0.7) == 1.0 and official_spans(f"{spans[0][0]:f} - {spans[0][1]:f}")


@pytest.mark.parametrize(
    ("reply", "official"),
    [("(B) it", "B"), ("Best option: (c)", "C"), ("a cat", "A"), ("b", "B"), ("Both", None), ("", None), ("(e) x", None)],
)
def test_options_by_the_official_reader(reply: str, official: str | None) -> None:
    assert official_choice(reply, 4, "rvq") == official


def _question(task: str, source: str, truth: list[list[float]] | None = None, answer: str = "") -> Question:
    meta: dict[str, Any] = {"source": source, "idx": 0} | ({"truth": truth} if truth else {})
    return Question(text="?", answer=answer, kind=task, choices=["w", "x", "y", "z"] if answer else [], meta=meta)


ASKED: list[tuple[Question, str]] = [
    (_question("tvg", "qvh", [[0.0, 10.0]]), "0 - 5"),  # IoU 0.5: 3 of 4 thresholds
    (_question("tvg", "qvh", [[0.0, 10.0]]), "none"),
    (_question("tvg", "charades", [[20.0, 30.0]]), "21 - 30 or 50 - 60"),  # 0.9: all; strict does not know which
    (_question("tal", "thumos", [[0.0, 10.0], [20.0, 30.0]]), "0 - 5, 21 - 30, 50 - 60"),
    (_question("evs", "tvsum", [[0.0, 10.0]]), "0 - 5"),  # 5 of 5 and 10 seconds: 10 of 15
    (_question("evs", "tvsum", [[0.0, 10.0]]), "?"),
    (_question("vhd", "qvh", [[0.0, 10.0], [20.0, 30.0]]), "at 25.5 of 60"),
    (_question("tem", "ego", [[0.0, 10.0], [20.0, 30.0]]), "22 - 30"),  # 0.8 with the nearest
    (_question("gvq", "qa", [[0.0, 10.0]], "B"), "(B) 0 - 4"),  # IoU 0.4: 2 of 4
    (_question("gvq", "qa", [[0.0, 10.0]], "B"), "(C) 0 - 4"),
    (_question("rar", "perception", answer="D"), "(D) z"),
    (_question("rar", "perception", answer="A"), "a dog"),
]


def test_by_hand() -> None:
    """The functions tvg_eval, tal_eval, evs_eval, vhd_eval, tem_eval and gvq_eval of compute_metrics.py, run on the same replies,
    gave tvg 0.375 (qvh) and 1.0 (charades), tal 0.7, evs 0.66667, vhd 1.0, tem 1.0, gvq 0.25."""
    scenario = Scenario(id="s", video="v.mp4", fps=1.0, num_frames=60, questions=[question for question, _ in ASKED])
    trace = Trace(scenario_id="s", mode="offline", answers=[reply for _, reply in ASKED])
    items = score_with([(trace, scenario)], Similarity("words", by_words))
    metrics = SUITE.aggregate(items)
    # qvh: 3/4 and 0; charades 1: mean of sources (0.375 + 1) / 2. Strict: 0 for the one with two spans.
    assert metrics["tvg.f1_official"] == pytest.approx(0.6875) and metrics["tvg.f1_strict"] == pytest.approx(0.1875)
    # At 0.1, 0.3 and 0.5: 0.8; at 0.7: 0.4.
    assert metrics["tal.f1_official"] == pytest.approx((3 * 0.8 + 0.4) / 4)
    assert metrics["evs.f1_official"] == pytest.approx(10 / 15) and metrics["evs.f1_strict"] == pytest.approx(5 / 15)
    # Official: the first number, 25.5; strict: two numbers say nothing.
    assert metrics["vhd.f1_official"] == 1.0 and metrics["vhd.f1_strict"] == 0.0 and metrics["vhd.read_strict"] == 0.0
    assert metrics["grounding.f1_official"] == pytest.approx((0.6875 + 0.7 + 2 / 3 + 1) / 4)
    assert metrics["tem.recall_official"] == 1.0 and metrics["gvq.recall_letters"] == pytest.approx((2 / 4 + 0) / 2)
    assert metrics["complex.recall_strict"] == pytest.approx((1 + 0.25) / 2)
    assert metrics["rar.accuracy_letters"] == 1.0 and metrics["rar.accuracy_strict"] == 0.5  # an article is no choice
    assert metrics["tvg.read_official"] == pytest.approx(2 / 3)
    # Letters stand in place of the official reading, and no group has some tasks of one and some of the other.
    assert "gvq.recall_official" not in metrics and "complex.recall_official" not in metrics
    # Sums of items give the same metrics: intervals need no more.
    summed = Layout(items)
    again = SUITE.aggregate(summed.items(summed.sums([items])[0]))
    assert {name: pytest.approx(value) for name, value in metrics.items()} == again


@pytest.mark.parametrize(("reply", "chosen"), [("yy", "B"), ("Best option: zz", "C"), ("", "")])
def test_replies_without_a_letter_get_the_option_of_the_most_similar_wording(reply: str, chosen: str) -> None:
    """As rvq_eval does: options are compared with their letters before them, the reply in lower case."""

    def longest_run(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float(len(set(a) & set(b))) for a, b in pairs]

    question = Question(text="?", answer="B", kind="rvq", choices=["xx", "yy", "zz"], meta={"source": "s"})
    scenario = Scenario(id="s", fps=1.0, num_frames=1, questions=[question])
    trace = Trace(scenario_id="s", mode="offline", answers=[reply])
    metrics = SUITE.aggregate(score_with([(trace, scenario)], Similarity("official", longest_run)))
    assert metrics["rvq.accuracy_official"] == float(chosen == "B") and metrics["rvq.read_official"] == 0.0
    assert metrics["referring.accuracy_official"] == metrics["rvq.accuracy_official"]
