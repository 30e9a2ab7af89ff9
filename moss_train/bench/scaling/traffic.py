"""What of a step is communication, and what of that nothing covers: read from one rank's kernels, then compared over ranks.

A communication kernel is one of NCCL's; it is exposed while no other kernel or copy of the same GPU runs. A kernel that waits for
a slower rank counts as long as it waits, so of the ranks' exposed seconds the most is what communication and waiting cost, and
the least is near to transfers alone. All-to-all and messages between pipeline stages are the same kernel, send-receive.
On a CPU operators take the place of kernels: how often something is called is right, and the seconds are of no use.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from typing import Any

from moss_train.bench.train.profile import Span

KINDS = (
    ("reduce-scatter", r"reduce_?scatter"),
    ("all-reduce", r"all_?reduce"),
    ("all-gather", r"all_?gather"),
    ("send-receive", r"send|recv|all_?to_?all"),
    ("broadcast", r"broadcast"),
)
_NAMES = re.compile(r"nccl|c10d::|gloo")


def kind_of(name: str) -> str | None:
    """Which communication a kernel of this name is; None for one that is none."""
    low = name.lower()
    if not _NAMES.search(low):
        return None
    return next((kind for kind, pattern in KINDS if re.search(pattern, low)), "other")


def exposed(spans: Sequence[Span]) -> dict[str, Any]:
    """Seconds of communication on one rank.

    Returns:
        `seconds` in which communication ran and `exposed` of them in which nothing else did; `kinds`: kind -> `calls`,
        `seconds`, `exposed`; `phases`: phase in which it was launched -> exposed seconds. Where kinds overlap each counts.
    """
    told = [(span, kind_of(span.name)) for span in spans]
    cover = _merged([(s.begin, s.begin + s.length) for s, kind in told if kind is None])
    kinds: dict[str, dict[str, float]] = {}
    phases: dict[str, float] = {}
    mine: list[tuple[float, float]] = []
    for span, kind in told:
        if kind is None:
            continue
        piece = (span.begin, span.begin + span.length)
        mine.append(piece)
        open_ = _uncovered([piece], cover) / 1e6
        entry = kinds.setdefault(kind, {"calls": 0, "seconds": 0.0, "exposed": 0.0})
        entry["calls"] += 1
        entry["seconds"] += span.length / 1e6
        entry["exposed"] += open_
        phases[span.phase] = phases.get(span.phase, 0.0) + open_
    merged = _merged(mine)
    whole = sum(end - begin for begin, end in merged) / 1e6
    return {"seconds": whole, "exposed": _uncovered(merged, cover) / 1e6, "kinds": kinds, "phases": phases}


def over_ranks(found: Sequence[dict[str, Any]], steps: Sequence[float]) -> dict[str, Any]:
    """The ranks' figures side by side.

    Args:
        found: `exposed` of every rank.
        steps: seconds of each rank's profiled step.

    Returns:
        `most` and `least` exposed seconds of a rank, their `share` and `least_share` of the profiled step, the same by kind
        and by phase, and every rank's own figures.
    """
    most, least, step = max(f["exposed"] for f in found), min(f["exposed"] for f in found), max(steps)
    kinds = sorted({kind for one in found for kind in one["kinds"]})
    phases = sorted({phase for one in found for phase in one["phases"]})
    none = {"calls": 0, "seconds": 0.0, "exposed": 0.0}

    def ends(values: Sequence[float]) -> dict[str, float]:
        return {"most": max(values), "least": min(values)}

    return {
        "most": most, "least": least, "share": most / step, "least_share": least / step, "step": step,
        "kinds": {
            kind: {
                "calls": max(one["kinds"].get(kind, none)["calls"] for one in found),
                **ends([one["kinds"].get(kind, none)["exposed"] for one in found]),
            }
            for kind in kinds
        },
        "phases": {phase: ends([one["phases"].get(phase, 0.0) for one in found]) for phase in phases},
        "ranks": list(found),
    }  # fmt: skip


def _merged(pieces: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same times without overlaps, in order."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(pieces):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _uncovered(pieces: Sequence[tuple[float, float]], cover: Sequence[tuple[float, float]]) -> float:
    """How much of the pieces lies in none of the (merged) covers."""
    ends = [end for _, end in cover]
    left = 0.0
    for begin, end in pieces:
        left += end - begin
        for low, high in cover[bisect.bisect_right(ends, begin) :]:
            if low >= end:
                break
            left -= min(end, high) - max(begin, low)
    return left
