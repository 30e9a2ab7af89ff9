"""Scenarios of the procedural world, of generated dialogues, and of anyone who names no suite.

Metrics are those of `scorers.summary.score` under flat names: `speak.f1`, `silence.recall`, `qa.colour`, `correction.in_time`,
`waiting.early_per_scenario`, `behaviour.NAME.f1`, `kind.NAME.in_time`.
"""

from __future__ import annotations

from inference.evaluation.suites.suite import Suite
from inference.evaluation.suites.world.scorer import aggregate, score

SUITE = Suite(
    name="world",
    title="Own scenarios",
    modes=("push", "offline"),
    main="speak.f1",
    score=score,
    aggregate=aggregate,
    higher_is_better={
        "speak.false_per_minute": False,
        "behaviour.*.false_per_minute": False,
        "waiting.early": False,
        "waiting.early_per_scenario": False,
    },
    extra={"neutral": ("*onset_error_*",)},  # signed: early is as wrong as late
    about="Speaking at the right frame, silence otherwise, corrections, answers that wait for evidence, questions",
)
