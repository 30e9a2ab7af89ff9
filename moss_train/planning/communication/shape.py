"""What a step works on, as far as it decides what is sent: the packs of every replica."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moss_train.config.schema import RunConfig
from moss_train.planning.data_items import DataItem
from moss_train.planning.data_steps import PackBounds, packed
from moss_train.planning.expected import ExpectedPack

FP8_ROWS = 16
"""Rows that products in fp8 come in."""


@dataclass(frozen=True)
class Pack:
    """A micro-batch."""

    samples: tuple[int, ...]
    """Rows of each sample, the padding behind them being one."""
    frames: int
    targets: tuple[int, ...]
    """Rows with a target on each context-parallel rank."""


@dataclass(frozen=True)
class StepShape:
    """The packs of a step, by replica. Every replica has equally many."""

    packs: tuple[tuple[Pack, ...], ...]
    datasets: int = 1
    """Of the run, whose sums and counts are shared."""
    content: tuple[int, ...] | None = None
    """Bytes of the rows that each replica's reading rank hands out; None estimates them."""

    @property
    def frames(self) -> int:
        return sum(pack.frames for packs in self.packs for pack in packs)

    @property
    def counts(self) -> list[list[int]]:
        """Frames of each pack of each replica."""
        return [[pack.frames for pack in packs] for packs in self.packs]


def rows_of(config: RunConfig, packs: tuple[Pack, ...]) -> int:
    """Rows of each of a replica's packs over its context-parallel ranks, with the padding that these ask for.

    Raises nothing; without context parallelism packs are as long as they are.
    """
    parallel = config.parallel
    size = parallel.context
    if size == 1:
        return sum(packs[0].samples)
    multiple = parallel.tensor if parallel.sequence_parallel else 1
    unit = math.lcm(2 * size, multiple * (FP8_ROWS if config.precision.fp8 != "none" else 1) * size)
    padded = [sum(-(-rows // (2 * size)) * 2 * size for rows in pack.samples) for pack in packs]
    return max(-(-rows // unit) * unit for rows in padded)


def drawn_shape(
    config: RunConfig, replicas: int, pack: ExpectedPack, stream: Callable[[int], Iterator[DataItem]] | None, seed: int = 0
) -> StepShape:
    """A step of the stage: packs drawn from the samples, or so many average ones where no samples are known.

    Args:
        replicas: data-parallel replicas.
        pack: the average pack.
        stream: samples by seed.
    """
    stage, context = config.stage, config.parallel.context
    each = config.train.global_batch_size // replicas
    datasets = max(1, len(config.data.datasets))
    if stream is None:
        frames, targets = round(pack.frames), round(pack.real_rows - pack.frames)
        average = Pack((pack.rows,), frames, (max(1, targets // context),) * context)
        return StepShape(((average,) * each,) * replicas, datasets)
    bounds = PackBounds(
        stage.sequence_length, stage.max_frames_per_pack, config.data.samples_per_pack, config.data.packing_buffer
    )
    drawn = itertools.islice(packed(stream(seed), bounds), each * replicas)
    packs = [_pack(list(items), stage.sequence_length, context) for items in drawn]
    return StepShape(tuple(tuple(packs[i * each : (i + 1) * each]) for i in range(replicas)), datasets)


def _pack(items: list[DataItem], length: int, context: int) -> Pack:
    rows = [item.rows for item in items]
    padding = length - sum(rows)
    frames = sum(item.frames for item in items)
    targets = max(1, (sum(rows) - frames) // context)
    return Pack((*rows, *([padding] if padding > 0 else [])), frames, (targets,) * context)
