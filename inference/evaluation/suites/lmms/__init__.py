"""Answers that lmms-eval logged (`--log_samples`), so that its runs get intervals and comparisons too.

Metrics: `TASK.METRIC`, the mean over the task's documents, and `mean_of_tasks`, the mean over tasks of the mean of their
metrics, of values between 0 and 1. A task's own aggregation may differ from the mean (weights by category, ratios); the results
file of lmms-eval has that.
"""

from __future__ import annotations

from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.suites.lmms.samples import NAME
from inference.evaluation.suites.suite import Suite


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means."""
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for item in items:
        for name, value in item.values.items():
            total, count = sums.get((item.task, name), (0.0, 0))
            sums[item.task, name] = total + value, count + 1
    means = {key: total / count for key, (total, count) in sorted(sums.items())}
    by_task: dict[str, list[float]] = {}
    for (task, _), value in means.items():
        if 0 <= value <= 1:
            by_task.setdefault(task, []).append(value)
    shares = [sum(found) / len(found) for found in by_task.values()]
    metrics: Metrics = {f"{task}.{name}": value for (task, name), value in means.items()}
    return metrics | {"mean_of_tasks": sum(shares) / len(shares) if shares else None}


SUITE = Suite(
    name=NAME,
    title="lmms-eval",
    modes=("offline",),
    main="mean_of_tasks",
    score=lambda pairs, judge: [],
    aggregate=aggregate,
    higher_is_better={f"*.*{name}*": False for name in ("wer", "cer", "mae", "mse", "error", "perplexity")},
    about="Answers logged by lmms-eval, judged by its tasks",
)
