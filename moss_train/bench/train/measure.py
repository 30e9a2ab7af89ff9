"""One case: steps of the real classes, their parts, operations, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from model.vision.fused.levels import all_fused
from moss_train.bench.subject import Subject
from moss_train.bench.train.batches import Batches, batches_of
from moss_train.bench.train.cases import Case, Options
from moss_train.bench.train.clock import StepClock, memory_of
from moss_train.bench.train.machine import ClockLog
from moss_train.bench.train.order import LEAST_STEPS
from moss_train.bench.train.profile import profile_step
from moss_train.bench.train.rates import (
    TERA,
    StepFlops,
    StepRecord,
    attention_flops,
    mean_seconds,
    middle,
    parts_of,
    rates,
    spread,
)
from moss_train.feed.work import batch_work
from moss_train.planning.flops import AGAIN, Work

Say = Callable[[str], None]


class Stepper:
    """Runs steps of a case and records them.

    Args:
        subject: a model that fits the case.
        source: of micro-batches.
        last: number of the last step.
    """

    def __init__(self, subject: Subject, source: Batches, last: int) -> None:
        self._subject, self._source, self._last = subject, source, last
        self.clock = StepClock(subject.layout.device)
        subject.step.phases = self.clock
        self.samples: list[list[tuple[int, int]]] = []
        """(rows, frames) of the samples of each micro-batch of the newest step."""

    def run(self, step: int) -> StepRecord:
        """One step from the data on, until the device is through with it."""
        self.sync()
        self.clock.begin()
        begin = time.perf_counter()
        fed = self._source.take(step, more=step < self._last)
        statistics = self._subject.train(fed.batches)
        self.sync()
        seconds = time.perf_counter() - begin
        work = sum((batch_work(batch) for batch in fed.batches), Work(rows=0))
        self.samples = [
            list(zip(batch.cu_seqlens.diff().tolist(), batch.cu_frames.diff().tolist(), strict=True)) for batch in fed.batches
        ]
        frames = getattr(self._subject.step, "frames", None)
        on_host, host_mode = getattr(frames, "kept_on_host", 0), getattr(frames, "host_mode", "all")
        kept, mode = self._kept(work.frames - statistics.encoded_again - on_host)
        return StepRecord(
            seconds=parts_of(self.clock.take(), fed.wait, seconds), host=dict(self.clock.host), work=work,
            tokens=statistics.tokens, samples=sum(map(len, self.samples)), again=statistics.encoded_again, kept=kept,
            keep_mode=mode, on_host=on_host, host_mode=host_mode, loss=statistics.loss, peaks=dict(self.clock.peaks),
        )  # fmt: skip

    def _kept(self, kept: int) -> tuple[int, str]:
        """Frames of the newest step that kept state for the tower's backward pass, and how much of it."""
        if self._subject.models.vision_trains != "tower":
            return 0, "all"
        frames, chosen = getattr(self._subject.step, "frames", None), self._subject.config.vision.keep_mode
        mode = getattr(frames, "keep_mode", chosen)
        return kept, mode if mode in AGAIN else "all"

    def sync(self) -> None:
        """Wait for the device."""
        if self._subject.layout.device.type == "cuda":
            torch.cuda.synchronize()


def measure_case(
    case: Case, subject: Subject, options: Options, peaks: dict[str, float | None], deadline: float | None, say: Say
) -> dict[str, Any]:
    """Everything about one case.

    Args:
        case: what to run.
        subject: its model, which other cases may have trained.
        options: steps, warm-up, data, profile.
        peaks: operations a second that shares are taken of.
        deadline: of `time.perf_counter()`; with one measured step at least, no step begins behind it.
        say: told of the progress.

    Raises:
        InputError: data that do not fit or end.
    """
    device = subject.layout.device
    with batches_of(case, subject, options.data, options.seed) as source:
        last = options.warmup + options.steps + (1 if options.profile else 0)
        stepper = Stepper(subject, source, last)
        done, begin = 0, time.perf_counter()
        while done < options.warmup and (done == 0 or not _spent(options, begin)):
            done += 1
            record = stepper.run(done)
            say(f"{case.name}: warm-up {done} of {options.warmup}, {record.seconds['step']:.3f} s")
        static = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        records: list[StepRecord] = []
        begin = time.perf_counter()
        with ClockLog(device) as log:
            while len(records) < options.steps and (not records or deadline is None or time.perf_counter() < deadline):
                if len(records) >= LEAST_STEPS and _spent(options, begin):
                    break
                records.append(stepper.run(done + len(records) + 1))
        memory = memory_of(stepper.clock, device, subject.weight_bytes, static)
        found = _summary(case, subject, records, source.same, peaks)
        if options.profile:
            say(f"{case.name}: profile of one step")
            found["profile"] = _profiled(stepper, subject, done + len(records) + 1)
    found |= {
        "samples": stepper.samples, "memory": memory, "clocks": log.means, "parameters": subject.parameters,
        "fused_tower": all_fused(subject.models.vision),
    }  # fmt: skip
    return found


def _spent(options: Options, begin: float) -> bool:
    """Whether `--case-seconds` are over since a moment of `time.perf_counter()`."""
    return options.case_seconds is not None and time.perf_counter() - begin >= options.case_seconds


def _summary(
    case: Case, subject: Subject, records: list[StepRecord], same: bool, peaks: dict[str, float | None]
) -> dict[str, Any]:
    each = [StepFlops.of(subject.model_config, subject.config, record) for record in records]
    chosen, count = middle(records), len(records)
    total = each[0]
    for one in each[1:]:
        total = total + one
    seconds = chosen.seconds if same else mean_seconds(records)
    tokens, frames = (sum(values) / count for values in ([r.tokens for r in records], [r.work.frames for r in records]))
    return {
        "steps": count,
        "seconds": seconds,
        "seconds_are": "those of the step of median time" if same else "means over steps that differ in their work",
        "spread": spread(records),
        "all_seconds": [record.seconds["step"] for record in records],
        "host_seconds": chosen.host,
        "work": asdict(chosen.work),
        "frames": {
            "encoded": frames,
            "kept": chosen.kept,
            "again": chosen.again,
            "keep_mode": chosen.keep_mode,
            "kept_on_host": chosen.on_host,
            "host_mode": chosen.host_mode,
        },
        "loss": chosen.loss,
        "per_second": {"tokens": tokens / seconds["step"], "frames": frames / seconds["step"]},
        "data_wait_share": seconds["data_wait"] / seconds["step"],
        **rates(seconds, total.scaled(1.0 / count), peaks),
    }


def _profiled(stepper: Stepper, subject: Subject, step: int) -> dict[str, Any]:
    """One more step under torch's profiler."""
    records: list[StepRecord] = []
    found = profile_step(lambda: records.append(stepper.run(step)), subject.layout.device)
    config, run = subject.model_config, subject.config
    attention = attention_flops(config, run, records[0])
    work = {"attention": attention, "product": StepFlops.of(config, run, records[0]).hardware.total - attention}
    for kind, flops in work.items():
        if kind in found["kinds"] and flops > 0:
            found["kinds"][kind]["tflops"] = flops / found["kinds"][kind]["seconds"] / TERA
    return found
