"""LM-PPL, LM-Correctness, TimeDiff and Fluency of recorded turns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from inference.evaluation.items import Item, Metrics
from inference.evaluation.judge.judge import Judge
from inference.evaluation.schema import FrameDecision, Scenario, TeacherTurn, Trace
from inference.evaluation.suites.suite import Pairs

NAME = "videollm_online"
THRESHOLDS = {"": 0.0, "_0725": 0.725}
"""By the ending of a metric's name; 0: the likeliest token alone decides."""
METRICS = ("failed", "lm_ppl", "lm_correctness", *(f"{name}{end}" for end in THRESHOLDS for name in ("time_diff", "fluency")))


def score(pairs: Pairs, judge: Judge | None = None) -> list[Item]:
    """One item for each stream: the means over its turns."""
    return [_item(trace, scenario) for trace, scenario in pairs if trace.mode == "teacher"]


def aggregate(items: Sequence[Item]) -> Metrics:
    """Means over streams; None where no stream has the metric."""
    found: Metrics = {}
    for name in METRICS:
        values = [item.values[name] for item in items if name in item.values]
        found[name] = sum(values) / len(values) if values else None
    return found


def speaks(decision: FrameDecision, threshold: float) -> bool:
    """Whether the model would have spoken: silence is not the likeliest, or not likely enough."""
    return not decision.silent or decision.silence < threshold


def frame_difference(turn: TeacherTurn, threshold: float) -> int:
    """Frames from the first at which the model would have spoken to the right one, the last of the turn.

    Above 0 it was early, below late. Without a later frame to speak at, being late costs nothing.
    """
    first = next((place for place, one in enumerate(turn.frames) if speaks(one, threshold)), None)
    if first is not None:
        return len(turn.frames) - first - 1
    later = next((place for place, one in enumerate(turn.later) if speaks(one, threshold)), None)
    return -len(turn.later) if later is None else -(later + 1)


def fluency(turn: TeacherTurn, threshold: float) -> float:
    """Share of a turn's frames and tokens up to the first mistake."""
    frames, tokens = len(turn.frames), len(turn.correct)
    difference = frame_difference(turn, threshold)
    if difference == 0:
        good = frames + right_before_the_first_wrong(turn)
    elif difference > 0:
        good = frames - difference
    else:
        good = frames - 1
    return good / (frames + tokens)


def right_before_the_first_wrong(turn: TeacherTurn) -> int:
    """Tokens of the text up to the first that is not the likeliest."""
    return next((place for place, right in enumerate(turn.correct) if not right), len(turn.correct))


def _item(trace: Trace, scenario: Scenario) -> Item:
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    values["failed"].append(float(bool(trace.error)))
    for turn in trace.turns:
        if turn.losses:
            values["lm_ppl"].append(math.exp(sum(turn.losses) / len(turn.losses)))
            values["lm_correctness"].append(right_before_the_first_wrong(turn) / len(turn.correct))
        if not turn.frames or scenario.spans[turn.span].meta.get("timed") is False:
            continue
        for end, threshold in THRESHOLDS.items():
            values[f"time_diff{end}"].append(abs(frame_difference(turn, threshold)) / scenario.fps)
            if turn.losses:
                values[f"fluency{end}"].append(fluency(turn, threshold))
    return Item(
        suite=NAME,
        scenario_id=scenario.id,
        item="stream",
        task=scenario.source or "narration",
        mode="teacher",
        values={name: sum(found) / len(found) for name, found in values.items() if found},
        details={
            "turns": len(trace.turns),
            "cluster": scenario.video or scenario.id,
            **({"error": trace.error} if trace.error else {}),
        },
    )
