"""The one workload of plans and benchmarks: what the samples of the four stages look like, drawn from a fixed seed.

Shares of text, image and video samples are those published for MOSS-Video-Preview; limits of frames, sequence lengths
and trained parts are those of its training configs as `conf/stage` holds them (of pretraining 2 no config was published,
see there). Frames of a video are log-uniform within the stage's limits, text of a sample is log-uniform in 64 to 1,024
tokens. An image is one frame; every frame takes one row of the sequence.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from data_pipeline.packing.select import select_packs

TEXT_TOKENS = (64, 1024)


class WorkloadSample(NamedTuple):
    """One sample."""

    kind: str
    """text | image | video"""
    tokens: int
    """Text tokens."""
    frames: int

    @property
    def rows(self) -> int:
        """Rows of the sequence."""
        return self.tokens + self.frames


@dataclass(frozen=True)
class StageWorkload:
    """What a training stage reads."""

    text: int
    """Percent of samples."""
    image: int
    video: int
    min_frames: int
    """Of a video."""
    max_frames: int
    sequence_length: int
    max_frames_per_pack: int
    trains: str
    """projector | tower: how far the backward pass goes into the vision encoder."""


STAGES: dict[str, StageWorkload] = {
    "pt1": StageWorkload(0, 79, 21, 8, 64, 4096, 64, "projector"),
    "pt2": StageWorkload(0, 26, 74, 8, 256, 8192, 256, "tower"),
    "sft_offline": StageWorkload(14, 44, 42, 8, 256, 8192, 256, "tower"),
    "sft_realtime": StageWorkload(11, 29, 60, 1, 256, 4096, 256, "tower"),
}


def _log_uniform(rng: random.Random, least: int, most: int) -> int:
    """An integer from `least` to `most`, its logarithm uniform."""
    return min(most, int(least * ((most + 1) / least) ** rng.random()))


def draw_samples(stage: str, seed: int = 0) -> Iterator[WorkloadSample]:
    """An endless stream of a stage's samples, the same for the same seed on every machine."""
    load, rng = STAGES[stage], random.Random(f"{stage}/{seed}")
    while True:
        share = 100 * rng.random()
        kind = "text" if share < load.text else "image" if share < load.text + load.image else "video"
        tokens = _log_uniform(rng, *TEXT_TOKENS)
        videos = _log_uniform(rng, load.min_frames, load.max_frames)  # always drawn, so that shares do not move the rest
        yield WorkloadSample(kind, tokens, {"text": 0, "image": 1, "video": videos}[kind])


def draw_packs(stage: str, seed: int = 0, buffer: int = 16) -> Iterator[list[WorkloadSample]]:
    """An endless stream of a stage's packs, formed by the loader's rule from one buffer of samples after the other.

    Args:
        buffer: samples among which packs are formed: `data.packing_buffer`.
    """
    load, samples = STAGES[stage], draw_samples(stage, seed)
    while True:
        waiting = [next(samples) for _ in range(buffer)]
        sizes = [(sample.rows, sample.frames) for sample in waiting]
        for pack in select_packs(sizes, load.sequence_length, load.max_frames_per_pack):
            yield [waiting[i] for i in pack]
