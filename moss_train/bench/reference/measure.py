"""Times and memory of one case, whichever way a model steps."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import torch

from data_pipeline.packing.batch import PackedMicroBatch
from model.config import VideoMllamaConfig
from moss_train.bench.packs import PackSample, pack_of
from moss_train.bench.reference.cases import Case, Model, Options
from moss_train.bench.reference.samples import alone, mixture_samples, one_sample, packed, pinned
from moss_train.bench.subject import Subject
from moss_train.bench.train.machine import ClockLog
from moss_train.bench.train.run import out_of_memory
from moss_train.config.schema import RunConfig
from moss_train.feed.work import batch_work
from moss_train.planning.flops import Work, model_flops

LEAST_STEPS = 2
"""Measured steps of a sample, however long they take."""


class Meter:
    """Runs steps of a model and waits for the device behind each.

    Args:
        subject: the model.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject, self._cuda = subject, subject.layout.device.type == "cuda"
        self.loss = 0.0
        """Of the newest step."""

    def step(self, batch: PackedMicroBatch) -> float:
        """Seconds of one step on one micro-batch: forward and backward, and the update where there is an optimizer."""
        self._sync()
        begin = time.perf_counter()
        self.loss = self._subject.train([batch]).loss
        self._sync()
        return time.perf_counter() - begin

    def try_step(self, batch: PackedMicroBatch) -> float | None:
        """As `step`; None where memory was short, of which nothing is kept."""
        try:
            return self.step(batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()
        return None

    def forget_peak(self) -> None:
        """Memory in use from here on is what counts."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """Most bytes allocated at once; None without a GPU."""
        return torch.cuda.max_memory_allocated() if self._cuda else None

    def _sync(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def measure(
    model: Model, case: Case, subject: Subject, options: Options, without: Sequence[int] = (), end: float = float("inf")
) -> dict[str, Any]:
    """Everything about one case on one model.

    Args:
        without: places of samples of a mixture that are left out.
        end: of `time.perf_counter()`: of a mixture on the reference's side no sample but the first begins behind it.

    Raises:
        InputError: samples that do not fit.
    """
    meter = Meter(subject)
    if case.kind == "mixture":
        return _mixture(model, case, subject, options, meter, without, end)
    batch = pinned([one_sample(subject.model_config, case.rows, case.frames, options.seed)], subject.layout.device)[0]
    warmup = [meter.step(batch) for _ in range(options.warmup)]
    meter.forget_peak()
    seconds: list[float] = []
    with ClockLog(subject.layout.device) as log:
        while len(seconds) < options.steps and (len(seconds) < LEAST_STEPS or sum(seconds) < options.case_seconds):
            seconds.append(meter.step(batch))
    sample = PackSample("video", case.rows, case.frames)
    return {
        **_head(median(seconds), [sample], subject), "all_seconds": seconds, "warmup_seconds": warmup, "packs": 1,
        "loss": meter.loss, "peak": meter.peak(), "clocks": log.means, **_kept(subject),
    }  # fmt: skip


def _kept(subject: Subject) -> dict[str, Any]:
    """What of the newest step's frames was kept for the backward pass, on our side."""
    frames = getattr(subject.step, "frames", None)
    if frames is None:
        return {}
    names = ("encoded_again", "keep_mode", "kept", "kept_on_host", "host_mode")
    return {name: getattr(frames, name) for name in names}


def _mixture(
    model: Model, case: Case, subject: Subject, options: Options, meter: Meter, without: Sequence[int], end: float
) -> dict[str, Any]:
    """One pass over a stage's samples, one micro-batch a step."""
    samples = mixture_samples(case.stage, options.mixture_samples, options.seed)
    config, device = subject.model_config, subject.layout.device
    left = [sample for place, sample in enumerate(samples) if place not in without]
    if model.side == "reference":
        batches = pinned(alone(config, left, options.seed), device)
    else:
        batches = pinned(packed(config, case.stage, left, options.seed), device)
    warmup = [meter.step(batches[place]) for place in extremes(batches)]
    meter.forget_peak()
    tried: list[float | None] = []
    with ClockLog(device) as log:
        for batch in batches:
            if model.side == "reference" and tried and time.perf_counter() >= end:
                break
            tried.append(meter.try_step(batch))
    too_large, not_reached = list(without), list[int]()
    if model.side == "reference":
        too_large = [place for place, spent in enumerate(tried) if spent is None]
        not_reached = list(range(len(tried), len(batches)))
    elif None in tried:
        raise torch.OutOfMemoryError(f"a pack of {case.stage} found no memory")
    seconds = [spent for spent in tried if spent is not None]
    samples = [sample for place, sample in enumerate(samples) if place not in too_large + not_reached]
    if not samples:
        raise torch.OutOfMemoryError(f"no sample of {case.stage} found memory")
    found = {
        **_head(sum(seconds), samples, subject), "all_seconds": seconds, "warmup_seconds": warmup, "packs": len(tried),
        "step_rows": [batch.num_rows for batch in batches[: len(tried)]],
        "step_frames": [batch.num_frames for batch in batches[: len(tried)]],
        "samples": [list(sample) for sample in samples], "loss": meter.loss, "peak": meter.peak(), "clocks": log.means,
        "too_large": too_large, "not_reached": not_reached, "drawn": len(batches) if model.side == "reference" else None,
    }  # fmt: skip
    if model.side == "reference":
        found["seconds_by_kind"] = _by_kind(samples, seconds)
    return found


def extremes(batches: Sequence[PackedMicroBatch]) -> list[int]:
    """Places of the micro-batches that a warm-up runs: fewest frames without and with any."""
    sizes = [(batch.num_frames, batch.num_rows) for batch in batches]
    some = [place for place, (frames, _) in enumerate(sizes) if frames]
    found = [min(range(len(sizes)), key=sizes.__getitem__), *([min(some, key=sizes.__getitem__)] if some else [])]
    return list(dict.fromkeys(found))


def _by_kind(samples: Sequence[PackSample], seconds: Sequence[float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for sample, spent in zip(samples, seconds, strict=True):
        found.setdefault(sample.kind, []).append(spent)
    return found


def sample_flops(samples: Sequence[PackSample], subject: Subject) -> tuple[float, Work]:
    """Model operations of forward and backward, each sample by itself and without padding; and what they are counted from."""
    return work_flops(samples, subject.model_config, subject.config)


def work_flops(samples: Sequence[PackSample], config: VideoMllamaConfig, run: RunConfig) -> tuple[float, Work]:
    """The same of a model that need not be there."""
    works = [batch_work(pack_of(config, [sample], pixels=False)) for sample in samples]
    return sum(model_flops(config, work, run.stage, run.lora).total for work in works), sum(works, Work(rows=0, cross_rows=0))


def _head(seconds: float, samples: Sequence[PackSample], subject: Subject) -> dict[str, Any]:
    """Rates of real samples: padding is not counted."""
    flops, work = sample_flops(samples, subject)
    return {
        "seconds": seconds,
        "sample_count": len(samples),
        "frames": work.frames,
        "tokens": work.rows,
        "work": asdict(work),
        "flops": flops,
        "frames_per_second": work.frames / seconds,
        "samples_per_second": len(samples) / seconds,
        "tflops": flops / seconds / 1e12,
    }
