"""Hidden states between pipeline stages, forward, and their gradients back: megatron-core's schedules, plain and interleaved.

Every pack passes every virtual stage once in each direction, so the order of the schedule changes nothing of the sums. The last
virtual stage is followed by none and the first has none before it; between virtual stages states go round from the last rank to
the first.
"""

from __future__ import annotations

from moss_train.planning.communication.calls import Calls, Traffic
from moss_train.planning.communication.rank import Rank


def add_pipeline(rank: Rank, traffic: Traffic) -> None:
    """What this rank sends to and receives from its neighbours."""
    if not rank.decodes or rank.config.parallel.pipeline == 1:
        return
    rows = rank.own_rows // (rank.tensor if rank.scattered else 1)
    size = rows * rank.width * rank.element
    chunks, packs = list(rank.chunks()), len(rank.packs)
    ahead = packs * sum(not chunk.last for chunk in chunks)
    behind = packs * sum(not chunk.first for chunk in chunks)
    both = ahead + behind  # forward one way, gradients the other
    traffic.add("pipeline", "send", "pipeline", 2, Calls(both, both * size, 0))
    traffic.add("pipeline", "receive", "pipeline", 2, Calls(both, 0, both * size))
