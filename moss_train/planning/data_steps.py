"""Steps of a run, drawn and packed as the loader does: padding, and how evenly rows, frames and cost fall on ranks.

Two ways to use the same ranks are compared on the same stream of samples. `packs`: every replica takes packs, frames are
encoded wherever there is room, and the step waits for the slowest rank in each phase. `sample a rank`: the reference's
order, a replica takes one sample, encodes its frames itself, and all wait for the slowest; the cost is of as many samples,
either in steps of one sample each (as the reference is configured) or added up on every replica before it waits.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_pipeline.packing.select import select_packs
from moss_train.planning.data_cost import StepCost
from moss_train.planning.data_items import DataItem

Pack = list[DataItem]
ROW_MULTIPLE = 8
"""The reference pads a batch to a multiple of this."""


@dataclass(frozen=True)
class PackBounds:
    """What limits a pack."""

    rows: int
    frames: int
    samples: int | None
    buffer: int
    """Samples among which packs are formed."""


@dataclass(frozen=True)
class PackShape:
    """Packs of one buffer size."""

    buffer: int
    padding: float
    """Share of rows."""
    samples: float
    """Samples a pack, mean."""
    frames: list[int]
    """Frames of a pack: least, quarter, median, three quarters, most."""


@dataclass(frozen=True)
class StepBalance:
    """Steps on one number of ranks, means over the steps."""

    ranks: int
    replicas: int
    packs: int
    """Of a replica in a step."""
    samples: float
    """In a step."""
    frames: float
    """Encoded by a rank in a step."""
    rows_packed: float
    """Largest over mean text rows of the replicas, without padding."""
    rows_alone: float
    """The same with a sample a replica."""
    frames_packed: float
    """Largest over mean frames that the replicas read."""
    frames_alone: float
    frames_encoded: float
    """Largest over mean frames that the ranks encode."""
    cost: float
    """Operations of the slowest rank in a step of packs."""
    ratio: float
    """That cost to the cost of as many samples in the reference's order, steps of one sample a replica."""
    ratio_accumulated: float
    """To the reference's order where every replica adds up its share of as many samples before it waits."""
    ideal: float
    """To the same samples without padding and without waiting."""


def packed(stream: Iterator[DataItem], bounds: PackBounds) -> Iterator[Pack]:
    """The loader's packs of a stream."""
    while True:
        waiting = list(itertools.islice(stream, bounds.buffer))
        sizes = [(s.rows, s.frames) for s in waiting]
        for pack in select_packs(sizes, bounds.rows, bounds.frames, bounds.samples):
            yield [waiting[i] for i in pack]


def pack_shape(stream: Iterator[DataItem], bounds: PackBounds, samples: int = 8192) -> PackShape:
    """Measure the packs of whole buffers, of at least `samples` samples."""
    packs: list[Pack] = []
    for _ in range(-(-samples // bounds.buffer)):
        waiting = list(itertools.islice(stream, bounds.buffer))
        found = select_packs([(s.rows, s.frames) for s in waiting], bounds.rows, bounds.frames, bounds.samples)
        packs += [[waiting[i] for i in pack] for pack in found]
    used = sum(s.rows for pack in packs for s in pack)
    frames = sorted(sum(s.frames for s in pack) for pack in packs)
    last = len(frames) - 1
    return PackShape(
        buffer=bounds.buffer,
        padding=1 - used / (len(packs) * bounds.rows),
        samples=sum(map(len, packs)) / len(packs),
        frames=[frames[round(last * part / 4)] for part in range(5)],
    )


def balance(
    packs: Iterator[Pack],
    samples: Iterator[DataItem],
    cost: StepCost,
    rows: int,
    *,
    ranks: int,
    replica_ranks: int,
    each: int,
    steps: int,
) -> StepBalance:
    """Spread some steps over the ranks.

    Args:
        packs, samples: two streams of the same data.
        rows: of a pack, padding included.
        replica_ranks: model-parallel ranks of a replica, which share its work evenly.
        each: packs of a replica in a step.
    """
    replicas = ranks // replica_ranks
    measured = []
    for _ in range(steps):
        taken = [list(itertools.islice(packs, each)) for _ in range(replicas)]
        count = sum(len(pack) for one in taken for pack in one)
        alone = list(itertools.islice(samples, max(replicas, count // replicas * replicas)))
        measured.append((count, *_step(taken, alone, cost, rows, ranks, replica_ranks)))
    columns = [statistics.fmean(column) for column in zip(*measured, strict=True)]
    return StepBalance(ranks, replicas, each, *columns)


def _step(
    taken: Sequence[Sequence[Pack]], alone: Sequence[DataItem], cost: StepCost, rows: int, ranks: int, replica_ranks: int
) -> tuple[float, ...]:
    """One step, as `StepBalance` holds it from `frames` on."""
    read = [sum(s.frames for pack in one for s in pack) for one in taken]
    used = [sum(s.rows for pack in one for s in pack) for one in taken]
    most = math.ceil(sum(read) / ranks)
    text = [sum(cost.text(pack, rows) for pack in one) / replica_ranks for one in taken]
    slowest = cost.vision(most) + max(text)
    replicas = len(taken)
    rounds = [alone[i : i + replicas] for i in range(0, len(alone), replicas)]
    costs = [[_alone(s, cost, replica_ranks) for s in one] for one in rounds]
    samples = sum(len(pack) for one in taken for pack in one)
    scale = samples / len(alone)  # the rounds hold whole replicas of samples
    waiting = sum(max(one) for one in costs) * scale
    added = max(sum(column) for column in zip(*costs, strict=True)) * scale
    bare = sum(cost.text([s], s.rows) for one in taken for pack in one for s in pack) / ranks + cost.vision(most)
    return (
        sum(read) / ranks,
        _imbalance(used),
        statistics.fmean(_imbalance([s.rows for s in one]) for one in rounds),
        _imbalance(read),
        statistics.fmean(_imbalance([s.frames for s in one]) for one in rounds),
        most * ranks / sum(read) if sum(read) else 1.0,
        slowest,
        slowest / waiting,
        slowest / added,
        slowest / bare,
    )


def _alone(sample: DataItem, cost: StepCost, replica_ranks: int) -> float:
    """Operations of a rank of a replica that takes this sample only; a text brings the reference's white image."""
    frames = math.ceil(max(1, sample.frames) / replica_ranks)
    rows = -(-sample.rows // ROW_MULTIPLE) * ROW_MULTIPLE
    return cost.vision(frames) + cost.text([sample], rows) / replica_ranks


def _imbalance(loads: Sequence[int]) -> float:
    total = sum(loads)
    return max(loads) * len(loads) / total if total else 1.0
