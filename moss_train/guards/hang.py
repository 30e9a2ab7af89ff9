"""One sentence about a run that makes no progress, from what its ranks say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = "hang"


@dataclass(frozen=True)
class Report:
    """Where a rank was when the watchdogs met."""

    rank: int
    host: str
    step: int
    phase: str
    collective: str
    """The collective that it waits in; empty for none."""
    where: str
    """file:line function."""
    seconds: float
    """Since when it is in that phase."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> Report:
        return Report(**json.loads(text))

    @property
    def spot(self) -> tuple[str, str]:
        return self.collective, self.where


def explain(reports: Mapping[int, Report], world_size: int, limit: float, folder: Path | None) -> str:
    """Which rank is not where the others are, or gave no answer, and which collective the others wait in.

    Args:
        reports: by rank, of the ranks that answered.
        limit: seconds without progress.
        folder: where the stacks lie; None where they could not be written.
    """
    step = max((report.step for report in reports.values()), default=0)
    silent = [rank for rank in range(world_size) if rank not in reports]
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports.values():
        groups.setdefault(report.spot, []).append(report)
    busy = [group for (collective, _), group in groups.items() if not collective]
    waiting = sorted((group for (collective, _), group in groups.items() if collective), key=len, reverse=True)
    parts = [f"{ranks_of(silent)} gave no answer"] if silent else []
    if waiting or silent:
        parts += [f"{_who(group)} {_is(group)} at {_place(group[0])}, in no collective" for group in busy[:4]]
    elif busy:
        parts += [f"{_who(group)} {_is(group)} at {_place(group[0])}" for group in busy[:4]]
    # Without a rank that is elsewhere, the odd ones out are those in another collective than most.
    parts += [f"{_who(group)} {_wait(group)} in {group[0].collective} at {_place(group[0])}" for group in _odd_first(waiting)[:4]]
    stacks = f"; the stacks of all threads are in {folder}" if folder is not None else ""
    return f"step {step} made no progress for {limit:g} s: " + "; ".join(parts) + stacks


def ranks_of(ranks: list[int]) -> str:
    """`rank 3` or `ranks 1, 4-6`."""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    shown = ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in spans)
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}"


def _odd_first(groups: list[list[Report]]) -> list[list[Report]]:
    return groups[1:] + groups[:1]


def _who(group: list[Report]) -> str:
    hosts = sorted({report.host for report in group})
    on = f" on host {hosts[0]}" if len(hosts) == 1 else f" on {len(hosts)} hosts"
    return ranks_of([report.rank for report in group]) + on


def _is(group: list[Report]) -> str:
    return "is" if len(group) == 1 else "are"


def _wait(group: list[Report]) -> str:
    return "waits" if len(group) == 1 else "wait"


def _place(report: Report) -> str:
    return f"{report.where} ({report.phase})"
