"""Items and aggregations for tests of statistics."""

from __future__ import annotations

import statistics as plain
from collections.abc import Sequence

import numpy as np

from inference.evaluation.items import Item, Metrics
from inference.evaluation.statistics.sample import Floats, Sums


def item(scenario: str, name: str, right: float, task: str = "t", mode: str = "offline", **details: str) -> Item:
    return Item(
        suite="made_up", scenario_id=scenario, item=name, task=task, mode=mode, values={"right": right}, details=dict(details)
    )  # fmt: skip


def accuracy(items: Sequence[Item]) -> Metrics:
    """Share of right items, over all and by task; the median too, which is no sum."""
    rights: dict[str, list[float]] = {"all": []}
    for one in items:
        rights.setdefault(one.task, []).append(one.values["right"])
        rights["all"].append(one.values["right"])
    shares: Metrics = {f"{task}.accuracy": sum(found) / len(found) if found else None for task, found in rights.items()}
    return shares | {"median": plain.median(rights["all"]) if rights["all"] else None}


def mean(items: Sequence[Item]) -> Metrics:
    return {"mean": sum(one.values["right"] for one in items) / len(items) if items else None}


def _columns(items: Sequence[Item]) -> Floats:
    return np.array([[1.0, one.values["right"]] for one in items])


MEAN_SUMS = Sums(_columns, lambda sums: {"mean": float(sums[1] / sums[0]) if sums[0] else None})
