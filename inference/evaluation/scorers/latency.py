"""How fast a stream was: delays of frames and answers, staleness, and what became of the frames."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from inference.evaluation.schema import Trace


def latency_scores(trace: Trace) -> dict[str, Any]:
    """Seconds, out of the events alone; meaningful for traces on a wall clock.

    Returns:
        `frame_latency`: from a frame's arrival to the row that sees it. `staleness`: at each token, stream time of the
        newest frame that had arrived less that of the newest one visible. `first_token`: from a prompt's arrival to the
        first text token of its turn. Each has p50, p95 and max, or is None. `frames`: how many were submitted, processed,
        dropped and rejected.
    """
    arrived: dict[int, float] = {}
    latencies, staleness, answers = [], [], []
    newest_arrived: int | None = None
    asked: float | None = None
    counts = {"frame_in": 0, "frame_done": 0, "frame_dropped": 0, "frame_rejected": 0}
    # A frame is dealt with at a token boundary but arrives between two: order by time, arrivals first.
    for event in sorted(trace.events, key=lambda e: (e.t, e.kind != "frame_in")):
        if event.kind in counts:
            counts[event.kind] += 1
        if event.kind == "frame_in" and event.frame is not None:
            arrived[event.frame] = event.t
            newest_arrived = event.frame
        elif event.kind == "frame_done" and event.frame in arrived:
            latencies.append(event.t - arrived[event.frame])
        elif event.kind == "prompt":
            asked = event.t
        elif event.kind in ("token", "silence") and event.token is not None:
            if event.frame in arrived and newest_arrived is not None:
                staleness.append(arrived[newest_arrived] - arrived[event.frame])
            if event.kind == "token" and asked is not None:
                answers.append(event.t - asked)
                asked = None
    return {
        "frame_latency": _spread(latencies),
        "staleness": _spread(staleness),
        "first_token": _spread(answers),
        "frames": {
            "submitted": counts["frame_in"],
            "processed": counts["frame_done"],
            "dropped": counts["frame_dropped"],
            "rejected": counts["frame_rejected"],
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p95 (linear interpolation) and max."""
    if not values:
        return None
    ordered = sorted(values)
    place = 0.95 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    p95 = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return {"p50": statistics.median(ordered), "p95": p95, "max": ordered[-1]}
