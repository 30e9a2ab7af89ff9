"""One item for each stream, and one for each change that the scenario annotates."""

from __future__ import annotations

import dataclasses
from typing import Any

from inference.evaluation.items import Item
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.questions import normalise
from inference.evaluation.scorers.speaking import Counts, count_speaking
from inference.evaluation.scorers.utterances import Utterance, read_speech
from inference.evaluation.suites.suite import Pairs
from inference.evaluation.suites.system.events import StreamFacts, read_stream

SUITE_NAME = "system"
SERIES = ("frame_latency", "staleness", "first_token", "after_frame", "stalls", "barge_in_last", "barge_in_first", "slot_tokens")
"""Fields of `StreamFacts` that are lists of seconds or tokens."""
COUNTS = tuple(f.name for f in dataclasses.fields(Counts) if f.name not in ("onset_errors", "onset_frames"))


def score(pairs: Pairs, judge: Judge | None = None) -> list[Item]:
    """Items of push traces; others give none."""
    items: list[Item] = []
    for trace, scenario in pairs:
        if trace.mode == "push":
            items += [_stream_item(trace, scenario), *_change_items(trace, scenario)]
    return items


def _stream_item(trace: Trace, scenario: Scenario) -> Item:
    facts = read_stream(trace)
    values = {
        "seconds": scenario.num_frames / scenario.fps,
        "violations": float(len(facts.violations)),
        "submitted": float(len(facts.arrivals)),
        "processed": float(facts.settled["frame_done"]),
        "dropped": float(facts.settled["frame_dropped"]),
        "rejected": float(facts.settled["frame_rejected"]),
        "most_pending": float(facts.most_pending),
        **{f"reason.{name}": float(count) for name, count in facts.reasons.items()},
        **_of_session(trace),
    }
    series = {name: list(getattr(facts, name)) for name in SERIES}
    drift = [max(0.0, t - number / scenario.fps) for number, t in facts.arrivals.items()]
    series |= {"drift": drift[-1:], "drift_largest": [max(drift)] if drift else []}
    if scenario.spans:
        counts = count_speaking(trace, scenario)
        values |= {f"speaking_{name}": float(getattr(counts, name)) for name in COUNTS}
        series |= {"onset_errors": list(counts.onset_errors), "onset_frames": [float(n) for n in counts.onset_frames]}
    values |= _emission(trace, facts)
    details: dict[str, Any] = {"clock": trace.engine.get("clock", ""), "end": trace.engine.get("end", "")}
    if facts.violations:
        details["violations"] = facts.violations[:20]
    return _item(scenario, "stream", str(details["clock"]) or "stream", values, series, details)


def _of_session(trace: Trace) -> dict[str, float]:
    """What only the session itself can know, where it said so at its end."""
    end = next((event.metrics for event in reversed(trace.events) if event.kind == "end" and event.metrics), {})
    found: dict[str, float] = {}
    if end.get("real_time_factor") is not None:
        found |= {"busy_seconds": float(end["busy_seconds"]), "session_seconds": float(end["seconds"])}
    memory = end.get("memory") or {}
    if memory.get("slope_per_minute") is not None:
        found |= {"memory_slope": float(memory["slope_per_minute"]), "memory_peak": float(memory["peak_bytes"])}
    return found


def _emission(trace: Trace, facts: StreamFacts) -> dict[str, float]:
    """Slots above the rate of training, where the trace says at what rate the checkpoint was trained."""
    emission = trace.engine.get("emission") or {}
    trained = emission.get("tokens_per_frame") if isinstance(emission, dict) else None
    if not isinstance(trained, (int, float)) or isinstance(trained, bool):
        return {}
    over = sum(count > trained for count in facts.slot_tokens)
    return {"slots_known": float(len(facts.slot_tokens)), "slots_over": float(over)}


def _change_items(trace: Trace, scenario: Scenario) -> list[Item]:
    """Of each change: whether and when the new statement was made, and how often the old one was made afterwards."""
    if not scenario.changes:
        return []
    utterances = read_speech(trace).utterances
    items = []
    for number, change in enumerate(scenario.changes):
        until = min((other.t for other in scenario.changes if other.t > change.t), default=float("inf"))
        later = [utterance for utterance in utterances if change.t <= utterance.t < until]
        made = next((utterance for utterance in later if change.after and _holds(utterance, change.after)), None)
        wrong = [
            u for u in later if change.before and _holds(u, change.before) and not (change.after and _holds(u, change.after))
        ]
        values = {"later": float(len(later)), "contradicted": float(len(wrong))}
        if change.after:
            values["corrected"] = float(made is not None)
        series = {"correction_seconds": [made.t - change.t] if made is not None else []}
        details = {"t": change.t, "before": change.before, "after": change.after, "reply": made.text if made is not None else ""}
        items.append(_item(scenario, f"change{number}", change.kind, values, series, details))
    return items


def _holds(utterance: Utterance, statement: str) -> bool:
    """Whether the words of a statement stand in an utterance, in a row."""
    return f" {normalise(statement)} " in f" {normalise(utterance.text)} "


def _item(
    scenario: Scenario, name: str, task: str, values: dict[str, float], series: dict[str, list[float]], details: dict[str, Any]
) -> Item:
    return Item(
        suite=SUITE_NAME,
        scenario_id=scenario.id,
        item=name,
        task=task,
        mode="push",
        values=values,
        series=series,
        details=details,
    )
