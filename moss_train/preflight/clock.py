"""How far the clocks of nodes are from each other: short round trips to the first node, of which the fastest counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moss_train.preflight.findings import OK, WARNING, Finding, Verdict

if TYPE_CHECKING:
    from moss_train.preflight.exchange import Exchange

Clock = Callable[[], float]
ROUND_TRIPS = 8
_REMEDY = "set it right (chronyc makestep, or timedatectl set-ntp true) or leave the node out"


@dataclass(frozen=True)
class Skew:
    """A node's clock less the first node's, in seconds, and how wrong that can be at most."""

    seconds: float
    within: float

    @classmethod
    def of(cls, trips: Iterable[tuple[float, float, float]]) -> Skew:
        """From round trips, each (own clock before, the first node's clock meanwhile, own clock after).

        The first node's clock was read at some time between the two others: half a trip is the largest error, whatever the
        delays there and back were.
        """
        before, there, after = min(trips, key=lambda trip: trip[2] - trip[0])
        return cls((before + after) / 2 - there, max(0.0, after - before) / 2)


def ask_clock(exchange: Exchange, node: int, clock: Clock, seconds: float) -> Skew:
    """On any node but the first, while that serves.

    Raises:
        NoAnswerError: the first node did not serve in time.
    """
    trips = []
    for trip in range(ROUND_TRIPS):
        before = clock()
        exchange.put(f"ask/{node}/{trip}", 0)
        exchange.await_at_once(f"tell/{node}/{trip}", seconds)
        after = clock()
        trips.append((before, float(exchange.get(f"tell/{node}/{trip}", seconds)), after))
    return Skew.of(trips)


def serve_clock(exchange: Exchange, node: int, clock: Clock, seconds: float) -> None:
    """On the first node, for one other.

    Raises:
        NoAnswerError: it stopped asking, or never asked.
    """
    end = time.monotonic() + seconds
    for trip in range(ROUND_TRIPS):
        exchange.await_at_once(f"ask/{node}/{trip}", end - time.monotonic())
        exchange.put(f"tell/{node}/{trip}", clock())


def judge_clocks(verdict: Verdict, skews: Mapping[int, Mapping[str, Any]], bound: float) -> None:
    """Hold all clocks against the middle one.

    Args:
        skews: by node: `seconds` and `within` of its `Skew`.
        bound: largest difference from the middle, seconds; 0 checks nothing.
    """
    middle = statistics.median(skew["seconds"] for skew in skews.values())
    if len(skews) == 2:
        middle = skews[min(skews)]["seconds"]  # of two neither is the middle
    away = {node: skew["seconds"] - middle for node, skew in skews.items()}
    values = {node: f"{difference:+.3f} s" for node, difference in away.items()}
    far = [node for node, difference in away.items() if bound and abs(difference) - skews[node]["within"] > bound]
    why = {
        node: f"clock is {abs(away[node]):.1f} s {'ahead of' if away[node] > 0 else 'behind'} the "
        f"{'other node' if len(skews) == 2 else 'middle of all'} (more than {bound:g} s); {_REMEDY}"
        for node in far
    }
    verdict.blame(far, list(skews), "clock", values, why)
    for node, skew in skews.items():
        if node in far:
            continue
        if bound and skew["within"] > bound:
            slow = (
                f"clock could be read to {skew['within']:.1f} s only: the fastest round trip took twice that; look at the network"
            )
            verdict.add(node, Finding("clock", WARNING, values[node], slow))
        else:
            verdict.add(node, Finding("clock", OK, values[node]))
