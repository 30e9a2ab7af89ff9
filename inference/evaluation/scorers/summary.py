"""All scores of a set of traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.behaviour import by_behaviour, by_kind, correction_scores, waiting_scores
from inference.evaluation.scorers.questions import question_scores
from inference.evaluation.scorers.speaking import Counts, count_matched, match_speech, speaking_scores
from model.errors import InputError


def score(traces: Sequence[Trace], scenarios: Sequence[Scenario]) -> dict[str, Any]:
    """Score traces against the scenarios that they name.

    Returns:
        `qa` (by kind) and `counts`; where something was streamed also `speak`, `speak_within_one`, `silence`, `correction`,
        `waiting` (answers whose evidence came later than the question), `by_behaviour` and `by_kind`.

    Raises:
        InputError: a trace names an unknown scenario or does not have one reply per question.
    """
    by_id = {scenario.id: scenario for scenario in scenarios}
    streamed, asked = [], []
    for trace in traces:
        if trace.scenario_id not in by_id:
            raise InputError(f"a trace names scenario {trace.scenario_id!r}, unknown to the scenario file; use matching files")
        scenario = by_id[trace.scenario_id]
        if trace.mode == "offline":
            if len(trace.answers) != len(scenario.questions):
                raise InputError(
                    f"the trace of scenario {scenario.id!r} has {len(trace.answers)} answers to {len(scenario.questions)} "
                    "questions; run the evaluation again"
                )
            asked.append((trace, scenario))
        else:
            streamed.append((trace, scenario))
    scores: dict[str, Any] = {"qa": question_scores(asked)}
    counts: dict[str, Any] = {"questions": sum(len(scenario.questions) for _, scenario in asked), "clips_streamed": len(streamed)}
    counts["clips"] = len({scenario.id for _, scenario in streamed + asked})
    if streamed:
        streams = [(match_speech(trace, scenario), scenario) for trace, scenario in streamed]
        total = Counts()
        for matched, scenario in streams:
            total.add(count_matched(matched, scenario))
        scores |= speaking_scores(total)
        scores |= {"correction": correction_scores(streams), "waiting": waiting_scores(streams)}
        scores |= {"by_behaviour": by_behaviour(streams), "by_kind": by_kind(streams)}
        counts |= {
            "frames": total.frames,
            "spans": total.spans,
            "spoken": total.spoken,
            "hits": total.hits,
            "seconds": total.seconds,
        }
    return scores | {"counts": counts}
