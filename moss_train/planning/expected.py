"""What an average pack of a stage holds: rows, frames and pairs of them, from the samples of the data or of the workload."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moss_train.config.schema import RunConfig
from moss_train.planning.data_items import DataItem, SourceVideo, workload_items
from moss_train.planning.data_steps import PackBounds, packed
from moss_train.planning.flops import Work
from moss_train.planning.memory import largest_frames
from moss_train.planning.workload import STAGES, TEXT_TOKENS

PACKS = 512
TEXT_ROWS = 512


@dataclass(frozen=True)
class ExpectedPack:
    """Means over packs."""

    rows: int
    """Padding included: every pack is as long as the stage says."""
    frames: float
    samples: float
    self_pairs: float
    cross_pairs: float
    real_rows: float
    """Without padding."""
    source: str
    """What the samples are."""

    def work(self, packs: int) -> Work:
        """Of so many packs."""
        return Work(
            rows=self.rows * packs,
            frames=round(self.frames * packs),
            self_pairs=round(self.self_pairs * packs),
            cross_pairs=round(self.cross_pairs * packs),
            head_rows=round((self.real_rows - self.frames) * packs),
        )

    def steps(self, samples: int, packs: int) -> int:
        """Of so many packs that so many samples take."""
        return max(1, -(-samples // max(1, round(self.samples * packs))))


def expected_pack(
    config: RunConfig, stream: Callable[[int], Iterator[DataItem]] | None, source: str, seed: int = 0
) -> ExpectedPack:
    """The average of packs formed by the loader's rule.

    Args:
        stream: samples by seed; None makes packs of texts, each with its share of half the stage's frames.
        source: what the samples are, in words.
    """
    stage = config.stage
    if stream is None:
        return _assumed(config)
    bounds = PackBounds(
        stage.sequence_length, stage.max_frames_per_pack, config.data.samples_per_pack, config.data.packing_buffer
    )
    packs = list(itertools.islice(packed(stream(seed), bounds), PACKS))
    everything = [item for pack in packs for item in pack]
    rows = sum(item.rows for item in everything) / len(packs)
    padding = [stage.sequence_length - sum(item.rows for item in pack) for pack in packs]
    pairs = sum(item.rows * (item.rows + 1) // 2 for item in everything) + sum(n * (n + 1) // 2 for n in padding)
    seen = sum(item.rows * item.frames * (0.5 if item.streamed else 1.0) for item in everything)
    return ExpectedPack(
        rows=stage.sequence_length,
        frames=sum(item.frames for item in everything) / len(packs),
        samples=len(everything) / len(packs),
        self_pairs=pairs / len(packs),
        cross_pairs=seen / len(packs),
        real_rows=rows,
        source=source,
    )


def workload_stream(config: RunConfig, video: SourceVideo) -> Callable[[int], Iterator[DataItem]] | None:
    """The published workload's samples; None for a stage that it does not have, or whose packs its samples do not fit."""
    stage = config.stage
    if stage.name not in STAGES:
        return None
    most = STAGES[stage.name].max_frames
    if stage.sequence_length < TEXT_TOKENS[1] + most or stage.max_frames_per_pack < most:
        return None
    return lambda seed: workload_items(config.stage, video, seed)


def _assumed(config: RunConfig) -> ExpectedPack:
    rows, frames = config.stage.sequence_length, largest_frames(config) / 2
    samples = max(1.0, rows / TEXT_ROWS)
    each = rows / samples
    return ExpectedPack(
        rows, frames, samples, rows * (each + 1) / 2, frames * each, float(rows),
        f"no samples known for these packs of stage {config.stage.name}: full ones with half of the frames that fit",
    )  # fmt: skip
