"""Answers of baselines."""

from __future__ import annotations

from inference.evaluation.baselines import class_prior
from inference.evaluation.schema import Question, Scenario


def test_answers_of_benchmarks_keep_their_spelling() -> None:
    question = Question(text="Which?", answer="B", kind="EPM", t=1.0)
    scenario = Scenario(id="a", video="a.mp4", fps=1.0, num_frames=2, questions=[question], suite="ovobench")
    assert [trace.answers for trace in class_prior([scenario]) if trace.mode == "offline"] == [["B"]]
