"""What a run's own lines say: rates of steps, the cost of a checkpoint, equality of steps that were done twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from moss_train.bench.fleet.job import Row

KEPT = (
    "seconds", "tokens_per_second", "frames_per_second", "mfu", "data_seconds", "feed_seconds", "padding", "between_seconds",
)  # fmt: skip
TOLERANCE = 0.01
"""Relative difference of a loss in another layout: sums of bf16 products in another order."""


def rates(rows: Sequence[Row], ranks: int) -> dict[str, Any]:
    """Medians of the steps, and what each was.

    Args:
        rows: of measured steps; at least one.
        ranks: GPUs.
    """
    records = [row.record for row in rows]
    found: dict[str, Any] = {name: _median(records, name) for name in KEPT}
    seconds = [record["seconds"] for record in records]
    found |= {"steps": len(rows), "least_seconds": min(seconds), "most_seconds": max(seconds)}
    found["tflops_per_gpu"] = _median(records, "tflops_per_second", 1 / ranks)
    waits = [record["data_seconds"] for record in records]
    found |= {"most_data_seconds": max(waits), "data_share": sum(waits) / sum(seconds)}
    names = {name for record in records for name in record.get("phase_seconds", {})}
    found["phase_seconds"] = {
        name: median([record.get("phase_seconds", {}).get(name, 0.0) for record in records]) for name in sorted(names)
    }
    memory = [record["memory"] for record in records if "memory" in record]
    found["memory_gib"] = memory[-1] if memory else {}
    return found | {"losses": [record["loss"] for record in records], "tokens_a_step": _median(records, "tokens")}


def _median(records: Sequence[Mapping[str, Any]], name: str, scale: float = 1.0) -> float | None:
    values = [record[name] for record in records if name in record]
    return scale * median(values) if values else None


def checkpoint_cost(rows: Mapping[int, Row], begun: Mapping[str, Any], published: Mapping[str, Any], seen: int,
                    warmup: int) -> dict[str, Any]:  # fmt: skip
    """Stall, time until the checkpoint stands, and the steps before, meanwhile and after.

    Args:
        rows: by step.
        begun: the event of its begin.
        published: that of its end, which is noticed behind a step.
        seen: that step.
        warmup: first steps, which are left out.
    """
    step = int(begun["step"])
    before = [row.record["seconds"] for at, row in rows.items() if warmup < at <= step]
    meanwhile = [row.record["seconds"] for at, row in rows.items() if step < at <= seen]
    after = [row.record["seconds"] for at, row in rows.items() if at > seen]
    behind = rows.get(step + 1)
    return {
        "step": step,
        "stall_seconds": begun["stall_seconds"],
        "durable_seconds": _time(published) - _time(begun) + begun["stall_seconds"],
        "median_before": median(before) if before else None,
        "median_meanwhile": median(meanwhile) if meanwhile else None,
        "most_meanwhile": max(meanwhile, default=None),
        "steps_meanwhile": len(meanwhile),
        "median_after": median(after) if after else None,
        "between_seconds_behind": None if behind is None else behind.record.get("between_seconds"),
    }


def _time(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def same_steps(one: Mapping[int, Row], other: Mapping[int, Row]) -> dict[str, Any]:
    """Losses and gradient norms of the steps that both have."""
    steps = sorted(one.keys() & other.keys())
    compared: list[dict[str, Any]] = [
        {
            "step": step,
            **{name: [one[step].record[name], other[step].record[name]] for name in ("loss", "grad_norm")},
            "equal": all(one[step].record[name] == other[step].record[name] for name in ("loss", "grad_norm")),
        }
        for step in steps
    ]
    return {
        "steps": compared,
        "bit_equal": bool(steps) and all(row["equal"] for row in compared),
        "loss_difference": _largest(row["loss"] for row in compared),
        "norm_difference": _largest(row["grad_norm"] for row in compared),
        "first_loss_difference": _largest([compared[0]["loss"]]) if compared else None,
    }


def _largest(pairs: Iterable[Sequence[float]]) -> float | None:
    """Relative."""
    return max((abs(a - b) / max(abs(a), 1e-30) for a, b in pairs), default=None)
