"""The `evaluation` group: what is evaluated while a run goes on, beside the held-out loss."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.checks import at_least


@dataclass(kw_only=True)
class EvaluationConfig:
    streaming_every: int = 0
    """Steps between small streaming evaluations; 0 makes none."""

    def __post_init__(self) -> None:
        at_least("evaluation.streaming_every", self.streaming_every, 0)
