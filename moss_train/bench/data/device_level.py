"""What a GPU is fed with: pinned uint8 pixels across the bus, normalised there, from a loader that uses every core."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from data_pipeline.loader import Loader
from data_pipeline.shards import write_samples
from model.vision.encoder import normalise_pixels
from moss_train.bench.data.clips import Clips, copies
from moss_train.bench.data.meter import Say
from moss_train.bench.data.setups import loader_of

FRAMES = 64
"""Of an upload."""
SAMPLES_PER_PACK = 4
COUNTED = 32
"""Micro-batches, behind one of each process that is not counted: queues are full at first."""
RATES = (43.0, 130.0)
"""Frames a second that one H200 encodes with the 11B model's tower, trained and frozen."""


@dataclass
class Upload:
    """Rates of the way from host memory to normalised pixels."""

    size: int
    """Side of a frame in pixels."""
    bus_gb_s: float
    """Pinned copy of 1 GiB."""
    upload_gb_s: float
    """Pinned copy of 64 uint8 frames."""
    upload_and_normalise_gb_s: float
    """The same with normalisation to bf16 on the GPU, by bytes uploaded."""
    frames_s: float
    """Uploaded and normalised."""


@dataclass
class Feed:
    """A loader with as many processes as there are cores."""

    shards: str
    processes: int
    frames_s: float
    """Drawn as fast as it gives."""
    data_wait: dict[str, float]
    """Share of the time that a loop waits for the loader if its step takes as long as encoding at so many frames a second."""


def measure_upload(size: int) -> Upload:
    """Medians of 20 copies."""
    large = torch.empty(2**30, dtype=torch.uint8).pin_memory()
    frames = torch.randint(0, 256, (FRAMES, 3, size, size), dtype=torch.uint8).pin_memory()  # [FRAMES, 3, size, size]
    bus = _seconds(lambda: large.to("cuda", non_blocking=True))
    upload = _seconds(lambda: frames.to("cuda", non_blocking=True))
    both = _seconds(lambda: normalise_pixels(frames.to("cuda", non_blocking=True), torch.bfloat16))
    rates = [
        round(count / seconds / 1e9, 2) for count, seconds in ((2**30, bus), (frames.numel(), upload), (frames.numel(), both))
    ]
    return Upload(size, rates[0], rates[1], rates[2], round(FRAMES / both, 1))


def measure_feed(clips: Clips, work_dir: Path, size: int, say: Say) -> list[Feed]:
    """The loader alone, and beside steps of a given length."""
    processes = len(os.sched_getaffinity(0))
    made = []
    for kind, paths in (("originals", clips.originals), ("transcoded", clips.transcoded)):
        folder = work_dir / f"device-{kind}"
        if not folder.exists():
            write_samples(folder, copies(paths, clips.settings, 4 * processes), samples_per_shard=8)
        say(f"{kind} through {processes} processes")
        loader = loader_of(
            {"video": folder}, size, global_data_workers=processes, worker_processes=processes, samples_per_pack=SAMPLES_PER_PACK,
            packing_buffer=SAMPLES_PER_PACK, prefetch=1,
        )  # fmt: skip
        try:
            frames_s = _frames_a_second(loader, processes)
            waits = {f"{rate:g} frames/s": round(_wait(loader, rate, processes), 4) for rate in RATES}
            made.append(Feed(kind, processes, round(frames_s, 1), waits))
        finally:
            loader.close()
    return made


def _frames_a_second(loader: Loader, uncounted: int) -> float:
    for _ in range(uncounted):
        next(loader)
    begun, count = time.perf_counter(), 0
    for _ in range(COUNTED):
        count += next(loader).num_frames
    return count / (time.perf_counter() - begun)


def _wait(loader: Loader, rate: float, uncounted: int) -> float:
    """Share of the time spent in `next`, behind which a step keeps the GPU busy for as long as its frames take at `rate`."""
    cycles = _cycles_a_second()
    waited, begun = 0.0, time.perf_counter()
    for number in range(uncounted + COUNTED):
        if number == uncounted:
            waited, begun = 0.0, time.perf_counter()
        before = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - before
        normalise_pixels(batch.frames.pin_memory().to("cuda", non_blocking=True), torch.bfloat16)
        torch.cuda._sleep(int(cycles * batch.num_frames / rate))
        torch.cuda.synchronize()
    return waited / (time.perf_counter() - begun)


def _cycles_a_second() -> float:
    return 1e8 / _seconds(lambda: torch.cuda._sleep(100_000_000))


def _seconds(call: Callable[[], object]) -> float:
    """Median of 20 calls, between events on the GPU."""
    found: list[float] = []
    for turn in range(23):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        call()
        last.record()
        torch.cuda.synchronize()
        if turn >= 3:
            found.append(first.elapsed_time(last) / 1e3)
    return statistics.median(found)
