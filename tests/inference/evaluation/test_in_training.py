"""Benchmarks among the scenarios of a training run have their main figure there."""

from __future__ import annotations

import pytest
import torch

from inference.evaluation.in_training import TrainingScorer
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Question, Scenario
from inference.evaluation.storage import save_scenarios
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer
from tests.inference.clips import write_clip


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> TrainingScorer:
    folder = tmp_path_factory.mktemp("in_training")
    write_clip(folder / "clip.mp4", [10, 200, 90, 30])
    question = Question(text="Which?", answer="A", kind="Counting", choices=["A. one", "B. two"])
    clip = {"fps": 1.0, "num_frames": 4}
    scenarios = [
        Scenario(id="own", video="clip.mp4", **clip),
        Scenario(id="bench", video="clip.mp4", suite="streamingbench", questions=[question], **clip),
    ]
    save_scenarios(folder / "set.jsonl", scenarios)
    tokenizer = tiny_tokenizer()
    return TrainingScorer(
        tiny_config(tokenizer.vocab_size),
        tokenizer,
        folder / "set.jsonl",
        limit=9,
        together=1,
        settings=RunSettings(),
        label=folder,
    )


def test_figures_of_benchmarks(scorer: TrainingScorer) -> None:
    parts = []
    for share in range(2):  # as two ranks would
        scorer.begin(torch.device("cpu"), torch.float32)
        for name, tensor in random_tensors(tiny_config(300), seed=2).items():
            scorer.take(name, tensor)
        parts.append(scorer.run(share, 2))
    figures = scorer.score(parts)
    traces = {(trace.scenario_id, trace.mode): trace for part in parts for trace in part}
    reply = traces["bench", "offline"].answers[0]
    assert figures["streamingbench_overall_accuracy_official"] == float(reply[:1] == "A")
    assert figures["scenarios"] == 2
    assert {"speak_f1", "silence_f1", "question_accuracy"} <= set(figures)
    scorer.forget()
