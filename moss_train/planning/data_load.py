"""What the loader owes to a step: decoded frames, cores, bytes from storage, memory of buffers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from moss_train.config.schema import DataConfig
from moss_train.planning.data_items import DataItem

PIXELS_PER_CORE_SECOND = 200 * 1920 * 1080
"""Of H.264 source frames passed: docs/benchmarks/data-loading.md, 106 frames of 30 times as many a second on 16 cores; other
sizes in proportion. Files that do not tell which frames others depend on take about twice as long."""
CONVERTED_PIXELS_PER_CORE_SECOND = 1920 * 1080 / 3.9e-3
"""To RGB, and fitted into 560 x 560: 3.9 ms for a frame of 1080p."""


@dataclass(frozen=True)
class Speeds:
    """Of one core."""

    decoded: float = PIXELS_PER_CORE_SECOND
    """Pixels a second."""
    converted: float = CONVERTED_PIXELS_PER_CORE_SECOND
    measured: bool = False


@dataclass(frozen=True)
class LoadOwed:
    """For every GPU, at a given time of a step."""

    step_seconds: float
    frames: float
    """Sampled frames a second."""
    decoded: float
    """Frames a second that decoders go through."""
    cores: float
    bytes: float
    """A second, from storage."""
    buffers: float
    """Bytes of shuffle and packing buffers, undecoded, of a replica's readers over its GPUs."""
    prefetched: float
    """Bytes of decoded micro-batches that wait."""


def load_owed(
    stream: Iterator[DataItem],
    data: DataConfig,
    speeds: Speeds,
    *,
    step_seconds: float,
    step_samples: float,
    ranks: int,
    replicas: int,
    pack_frames: float,
    frame_bytes: int,
    samples: int = 4096,
) -> LoadOwed:
    """Loads from the mean of `samples` samples of the stream.

    Args:
        step_samples: samples in a step of all ranks.
        pack_frames: frames of a pack, mean.
        frame_bytes: pixels of a fitted frame.
    """
    drawn = list(itertools.islice(stream, samples))
    rate = step_samples / step_seconds / ranks / len(drawn)  # of the drawn samples together, a second and GPU
    readers = max(1.0, data.global_data_workers / replicas)
    processes = readers if data.worker_processes is None else max(1, data.worker_processes)
    stored = sum(s.stored for s in drawn) / len(drawn)
    return LoadOwed(
        step_seconds=step_seconds,
        frames=rate * sum(s.frames for s in drawn),
        decoded=rate * sum(s.decoded for s in drawn),
        cores=rate * sum(s.decoded * s.pixels / speeds.decoded + s.frames * s.pixels / speeds.converted for s in drawn),
        bytes=rate * sum(s.stored for s in drawn),
        buffers=readers * (max(0, data.shuffle_buffer) + data.packing_buffer) * stored * replicas / ranks,
        prefetched=processes * data.prefetch * pack_frames * frame_bytes * replicas / ranks,
    )
