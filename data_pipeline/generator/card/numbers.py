"""All numbers of the card as JSON values: `card.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from data_pipeline.generator.card.collect import Build, finite
from data_pipeline.generator.card.histogram import Counts, Histogram
from data_pipeline.generator.card.tally import Tally

COST = ("calls", "cached", "retries", "input_tokens", "output_tokens", "dollars")


def numbers_of(build: Build) -> dict[str, Any]:
    """Totals, histograms, counts, rejections, splits, provenance and cost of a build."""
    tally = build.tally
    tried = tally.sums["rows"] + sum(count for count, _ in tally.rejections.values())
    return {
        "build": _about(build),
        "finished": bool(build.summary),
        "parts": len(build.parts),
        "totals": _totals(tally),
        "splits": {name: _split(one) for name, one in build.splits.items()},
        "shared_split_keys": {f"{a} and {b}": count for (a, b), count in build.shared_keys().items()},
        "behaviours": {name: _behaviour(one, tally.sums["rows"]) for name, one in _by_rows(tally.behaviours)},
        "histograms": {name: _histogram(one) for name, one in tally.histograms.items()},
        "counts": {name: one.to_dict() for name, one in tally.counts.items()},
        "answer_balance": _balance(tally.counts["answer_values"]),
        "tried": tried,
        "rejections": _rejections(tally, tried),
        "left_out_rows": _left_out(build.summary.get("dropped")),
        "left_out_videos": _left_out(_inside(build.summary, "source", "left_out")),
        "provenance": [_source(key, rows) for key, rows in tally.counts["provenance"].ranked()],
        "cost": cost_of(build.summary.get("cost")),
    }


def cost_of(values: Any) -> dict[str, dict[str, float]]:
    """Cost by role of the requests as numbers; what is missing counts 0."""
    roles = values.get("roles") if isinstance(values, Mapping) else None
    if not isinstance(roles, Mapping):
        return {}
    return {
        str(role): {key: finite(one.get(key)) or 0.0 for key in COST} for role, one in roles.items() if isinstance(one, Mapping)
    }


def _about(build: Build) -> dict[str, Any]:
    """What `build.json` says of the build as a whole; None for what it does not say."""
    summary = build.summary
    seconds = summary.get("seconds")
    parts = [finite(value) or 0.0 for value in seconds.values()] if isinstance(seconds, Mapping) else []
    return {
        "name": _inside(summary, "settings", "source", "name") or None,
        "version": summary.get("version"),
        "seconds": sum(parts) if parts else None,
        "rows_made": finite(summary.get("rows_made")),
        "rows_per_second": finite(summary.get("rows_per_second")),
        "workers": finite(summary.get("workers")),
        "kept": dict(summary["rows"]) if isinstance(summary.get("rows"), Mapping) else {},
    }


def _inside(values: Any, *names: str) -> Any:
    """A field of nested objects, or None."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _left_out(values: Any) -> dict[str, int]:
    """How many by reason, of reasons with counts or with objects that hold one."""
    if not isinstance(values, Mapping):
        return {}
    counts = {str(reason): finite(one.get("count") if isinstance(one, Mapping) else one) for reason, one in values.items()}
    return {reason: int(count) for reason, count in counts.items() if count is not None}


def _totals(tally: Tally) -> dict[str, Any]:
    sums = tally.sums
    return {
        **sums,
        "hours": sums["seconds"] / 3600,
        "videos": len(tally.videos),
        "split_keys": len(tally.split_keys),
        "silence_ratio": sums["silent_frames"] / sums["frames"] if sums["frames"] else None,
    }


def _split(tally: Tally) -> dict[str, Any]:
    return {**_totals(tally), "rejected": sum(count for count, _ in tally.rejections.values())}


def _behaviour(one: Mapping[str, int], rows: float) -> dict[str, Any]:
    silence = one["silent_frames"] / one["frames"] if one["frames"] else None
    return {**one, "share": one["rows"] / rows if rows else None, "silence_ratio": silence}


def _by_rows(behaviours: Mapping[str, dict[str, int]]) -> list[tuple[str, dict[str, int]]]:
    return sorted(behaviours.items(), key=lambda item: (-item[1]["rows"], item[0]))


def _histogram(one: Histogram) -> dict[str, Any]:
    return {**one.to_dict(), "n": one.n, "mean": one.mean, "median_from": one.share_point(0.5)}


def _balance(counts: Counts) -> dict[str, Any]:
    """How evenly answers are spread: the share of the most frequent one, and the entropy in bits and against an even spread."""
    ranked = counts.ranked()
    if not ranked:
        return {"distinct": 0, "largest_share": None, "entropy_bits": None, "evenness": None}
    total = sum(times for _, times in ranked)
    bits = -sum(times / total * math.log2(times / total) for _, times in ranked)
    even = bits / math.log2(len(ranked)) if len(ranked) > 1 else None
    return {"distinct": len(ranked), "largest_share": ranked[0][1] / total, "entropy_bits": bits, "evenness": even}


def _rejections(tally: Tally, tried: float) -> list[dict[str, Any]]:
    found = [
        {"stage": stage, "reason": reason, "behaviour": behaviour, "count": count, "share": count / tried, "example": example}
        for (stage, reason, behaviour), (count, example) in tally.rejections.items()
    ]
    return sorted(found, key=lambda one: (-one["count"], one["stage"], one["reason"]))


def _source(key: str, rows: int) -> dict[str, Any]:
    source, _, licence = key.partition("\t")
    return {"source": source, "license": licence, "rows": rows}
