"""All numbers of the card as JSON values: `card.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from data_pipeline.generator.card.collect import Build, finite
from data_pipeline.generator.card.histogram import Counts, Histogram
from data_pipeline.generator.card.tally import Tally

DUPLICATE, DECONTAMINATION = "duplicate", "decontamination"
"""Stages of rejections that have a line of their own."""
COST = ("calls", "input_tokens", "output_tokens", "dollars")


def numbers_of(build: Build) -> dict[str, Any]:
    """Totals, histograms, counts, rejections, splits, provenance and cost of a build."""
    tally = build.tally
    tried = tally.sums["rows"] + sum(count for count, _ in tally.rejections.values())
    return {
        "build": {key: build.summary.get(key) for key in ("name", "version", "seconds", "rate", "blocklist")},
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
        "duplicates_removed": _of_stage(tally, DUPLICATE),
        "decontamination_hits": _of_stage(tally, DECONTAMINATION),
        "provenance": [_source(key, rows) for key, rows in tally.counts["provenance"].ranked()],
        "cost": cost_of(build.summary.get("cost")),
    }


def cost_of(values: Any) -> dict[str, dict[str, float]]:
    """Cost by stage as numbers; what is missing counts 0, and what is no object of stages gives nothing."""
    if not isinstance(values, Mapping):
        return {}
    return {
        str(stage): {key: finite(one.get(key)) or 0.0 for key in COST}
        for stage, one in values.items()
        if isinstance(one, Mapping)
    }


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


def _of_stage(tally: Tally, wanted: str) -> int:
    return sum(count for (stage, _, _), (count, _) in tally.rejections.items() if stage == wanted)


def _source(key: str, rows: int) -> dict[str, Any]:
    source, _, licence = key.partition("\t")
    return {"source": source, "license": licence, "rows": rows}
