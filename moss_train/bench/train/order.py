"""Which case comes first, how long each is expected to take, and which no memory holds: told before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from moss_train.bench.packs import stage_pack
from moss_train.bench.train.cases import Case, Options
from moss_train.feed.work import batch_work
from moss_train.planning.calibration.compare import predicted_peak, predicted_seconds
from moss_train.planning.calibration.results import Case as Planned
from moss_train.planning.flops import Gpu, Work
from moss_train.planning.memory import plan_memory
from moss_train.planning.rates import Row

FRAMES, ROWS = (64, 8, 0, 256), (4096, 8192, 1024)
"""What is asked about first: the step of the summary, the decoder's, then the extremes."""
BUILD_SECONDS = 4.0
"""Of a model at 11B widths and the first launch of its kernels, found in a cache; of a case whose model is there, none."""
LEAST_STEPS = 2
"""Measured steps that `--case-seconds` leaves, however long they take."""


def in_order(cases: Sequence[Case]) -> list[Case]:
    """Cases that share a model behind each other; models in the order that was asked for, of each the most telling case first."""
    groups = list(dict.fromkeys(case.group for case in cases))
    return sorted(cases, key=lambda case: (groups.index(case.group), _place(case)))


def _place(case: Case) -> tuple[int, int]:
    frames = FRAMES.index(case.frames) if case.frames in FRAMES else len(FRAMES)
    rows = ROWS.index(case.rows) if case.rows in ROWS else len(ROWS)
    return frames + rows, frames


@dataclass(frozen=True)
class Expected:
    """What a plan says of a case."""

    step: float | None
    """Seconds; None on a device whose rates are not known."""
    peak: int
    """Bytes on the device, what lies beside the allocator among them."""


def expected(case: Case, seed: int, gpu: Gpu | None, row: Row | None) -> Expected:
    """A case's step and memory by the plan.

    Args:
        seed: of the packs.
        gpu: of the table of peaks.
        row: what it reaches; either None leaves the step unknown.
    """
    config = case.config
    model = VideoMllamaConfig.from_dict(config.model)
    packs = [
        stage_pack(model, case.stage, case.rows, case.frames, seed + number, pixels=False) for number in range(case.micro_batches)
    ]
    samples = tuple(
        tuple(zip(pack.cu_seqlens.diff().tolist(), pack.cu_frames.diff().tolist(), strict=True)) for pack in packs
    )  # fmt: skip
    work = sum(map(batch_work, packs), Work(rows=0))
    planned = Planned(case.name, config, samples, work, case.optimizer != "none", {}, None, None)
    step = None if gpu is None or row is None else sum(predicted_seconds(planned, gpu, row).values())
    outside = plan_memory(config, 1, planned.load).stages[0].outside
    return Expected(step, predicted_peak(planned) + outside)


def case_steps(options: Options, step: float) -> tuple[int, int]:
    """Steps of warm-up and measured ones, at most, where a step takes so many seconds."""
    if options.case_seconds is None:
        return options.warmup, options.steps
    fitting = int(options.case_seconds / step) if step > 0 else options.steps
    warmup = min(options.warmup, max(1, fitting))
    return warmup, min(options.steps, max(LEAST_STEPS, fitting))
