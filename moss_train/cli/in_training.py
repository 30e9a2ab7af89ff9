"""Joins the training run and the streaming engine, neither of which knows the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moss_train.evaluation.streaming import Scorer, StreamingEvaluation

if TYPE_CHECKING:
    from moss_train.setup import Session


def make_scorer(session: Session) -> Scorer:
    """The streaming engine's scorer for a run.

    Raises:
        InputError: the scenario file, or a video that it names, is missing or wrong.
    """
    from inference.evaluation.in_training import TrainingScorer
    from inference.evaluation.running.settings import RunSettings

    settings = session.config.evaluation
    assert settings.streaming_scenarios is not None
    return TrainingScorer(
        session.model_config,
        session.tokenizer,
        Path(settings.streaming_scenarios),
        limit=settings.streaming_max,
        together=settings.streaming_together,
        settings=RunSettings(
            tokens_per_frame=settings.streaming_tokens_per_frame, max_answer_tokens=settings.streaming_answer_tokens
        ),
        label=session.folder.path,
    )


make_streaming_evaluation = StreamingEvaluation.maker(make_scorer)
"""What `moss_train.trainer.train` takes among its evaluators."""
