"""From items of streams to metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.scorers.speaking import Counts, speaking_scores
from inference.evaluation.suites.system.scorer import COUNTS

_SPREADS: dict[str, tuple[str, tuple[str, ...]]] = {
    "frame_latency": ("frame_latency", ("p50", "p95", "p99", "max")),
    "staleness": ("staleness", ("p50", "p95", "max")),
    "first_token": ("first_token", ("p50", "p95")),
    "after_frame": ("after_frame", ("p50", "p95")),
    "stall": ("stalls", ("max",)),
    "barge_in.last_token": ("barge_in_last", ("p50",)),
    "barge_in.first_token": ("barge_in_first", ("p50",)),
    "emission": ("slot_tokens", ("p50", "p95", "max", "mean")),
    "correction.seconds": ("correction_seconds", ("p50",)),
}
"""Metric: (series, which figures of it)."""

LOWER_IS_BETTER = (
    *(f"{name}.{figure}" for name, (_, figures) in _SPREADS.items() if name != "emission" for figure in figures),
    "real_time_factor",
    "accounting.violations",
    "frames.dropped*",
    "frames.rejected*",
    "frames.pending_max",
    "drift.last",
    "drift.max",
    "speak.false_per_minute",
    "correction.contradicted",
    "memory.*",
    "emission.over_trained",
)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of sorted values that at least `share` of them do not exceed."""
    return ordered[max(1, math.ceil(share * len(ordered) - 1e-9)) - 1]


def aggregate(items: Sequence[Item]) -> Metrics:
    """Metrics of any multiset of items; None where nothing of the sort was seen."""
    streams = [item for item in items if item.item == "stream"]
    changes = [item for item in items if item.item.startswith("change")]
    metrics: Metrics = {}
    for name, (series, figures) in _SPREADS.items():
        values = sorted(value for item in items for value in item.series.get(series, ()))
        metrics |= {f"{name}.{figure}": _figure(values, figure) for figure in figures}
    for name, series in (("last", "drift"), ("max", "drift_largest")):
        metrics[f"drift.{name}"] = max((value for item in streams for value in item.series.get(series, ())), default=None)
    metrics["real_time_factor"] = _ratio(_total(streams, "busy_seconds"), _total(streams, "session_seconds"))
    metrics["accounting.violations"] = _total(streams, "violations")
    metrics |= {f"frames.{name}": _total(streams, name) for name in ("submitted", "processed", "dropped", "rejected")}
    reasons = sorted({name for item in streams for name in item.values if name.startswith("reason.")})
    metrics |= {f"frames.{name.removeprefix('reason.')}": _total(streams, name) for name in reasons}
    metrics["frames.pending_max"] = max((item.values["most_pending"] for item in streams), default=None)
    slopes = [item.values["memory_slope"] for item in streams if "memory_slope" in item.values]
    metrics["memory.slope"] = sum(slopes) / len(slopes) if slopes else None
    metrics["memory.peak"] = max((item.values["memory_peak"] for item in streams if "memory_peak" in item.values), default=None)
    metrics["emission.over_trained"] = _ratio(_total(streams, "slots_over"), _total(streams, "slots_known"))
    corrected = [item.values["corrected"] for item in changes if "corrected" in item.values]
    metrics["correction.share"] = sum(corrected) / len(corrected) if corrected else None
    metrics["correction.contradicted"] = _ratio(_total(changes, "contradicted"), _total(changes, "later"))
    return metrics | _speaking([item for item in streams if "speaking_spans" in item.values])


def _figure(values: Sequence[float], figure: str) -> float | None:
    if not values:
        return None
    if figure == "max":
        return values[-1]
    if figure == "mean":
        return sum(values) / len(values)
    return quantile(values, int(figure[1:]) / 100)


def _total(items: Sequence[Item], name: str) -> float | None:
    found = [item.values[name] for item in items if name in item.values]
    return sum(found) if found else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _speaking(streams: Sequence[Item]) -> Metrics:
    """Scores of speaking and silence, where there is truth."""
    if not streams:
        return {}
    total = Counts()
    for item in streams:
        counts = Counts(
            onset_errors=list(item.series["onset_errors"]), onset_frames=[int(n) for n in item.series["onset_frames"]]
        )
        for name in COUNTS:
            value = item.values[f"speaking_{name}"]
            setattr(counts, name, value if name == "seconds" else int(value))
        total.add(counts)
    scores = speaking_scores(total)
    return {f"{section}.{name}": value for section in ("speak", "silence") for name, value in scores[section].items()}
