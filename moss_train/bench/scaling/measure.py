"""One case on one rank, and the ranks' figures put together."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import torch
import torch.distributed as dist

from model.config import VideoMllamaConfig
from moss_train.bench.scaling.cases import Case
from moss_train.bench.scaling.deal import dealt
from moss_train.bench.scaling.predict import all_packs, packs_of, predicted, work_of
from moss_train.bench.scaling.traffic import exposed, over_ranks
from moss_train.bench.subject import Subject
from moss_train.bench.train.batches import Fed
from moss_train.bench.train.clock import memory_of
from moss_train.bench.train.measure import Stepper
from moss_train.bench.train.profile import record_step
from moss_train.bench.train.rates import PHASES, TERA, StepRecord
from moss_train.planning.flops import Gpu, model_flops
from moss_train.planning.rates import Row


class Replica:
    """The same micro-batches in every step: those of this rank's replica, pinned as the loader's are.

    Args:
        case: of all replicas.
        subject: whose place says which one this is.
        seed: of samples, tokens and pixels.
    """

    same = True

    def __init__(self, case: Case, subject: Subject, seed: int) -> None:
        made = packs_of(case, subject.model_config, subject.layout.place.data, seed)
        pin = subject.layout.device.type == "cuda"
        self._batches = [dataclasses.replace(b, frames=b.frames.pin_memory()) for b in made] if pin else made

    def take(self, step: int, more: bool) -> Fed:
        """The packs."""
        return Fed(self._batches)


def measure_case(case: Case, subject: Subject, *, warmup: int, steps: int, seed: int, profile: bool) -> list[dict[str, Any]]:
    """Run a case; all ranks do so together.

    Returns:
        Every rank's figures, by rank.
    """
    device = subject.layout.device
    stepper = Stepper(subject, Replica(case, subject, seed), warmup + steps + profile)
    with dealt(case.deal):
        for step in range(1, warmup + 1):
            _together(device)
            stepper.run(step)
        static = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        records: list[StepRecord] = []
        for step in range(warmup + 1, warmup + steps + 1):
            _together(device)
            records.append(stepper.run(step))
        memory = memory_of(stepper.clock, device, subject.weight_bytes, static)
        found: dict[str, Any] = {
            "seconds": [record.seconds for record in records], "memory": memory, "loss": records[-1].loss,
            "encoded": int(subject.step.frames.encoded_by_rank[subject.layout.rank]),
        }  # fmt: skip
        if profile:
            _together(device)
            spans = record_step(lambda: records.append(stepper.run(warmup + steps + 1)), device)
            found["traffic"] = {**exposed(spans), "step": records[-1].seconds["step"]}
    everyone: list[dict[str, Any]] = [{}] * subject.layout.world_size
    dist.all_gather_object(everyone, found)
    return everyone


def _together(device: torch.device) -> None:
    """All ranks begin a step at once: what one waits within it is the step's own."""
    dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)


def summary(case: Case, ranks: list[dict[str, Any]], seed: int, gpu: Gpu | None, row: Row | None) -> dict[str, Any]:
    """What one reads of a case: the step is over when its last rank is through.

    Args:
        ranks: `measure_case`.
        seed: of the packs.
        gpu: of the table of peaks; None on a device that it does not have.
        row: what such a GPU reaches, for the prediction.
    """
    times = [max(rank["seconds"][step]["step"] for rank in ranks) for step in range(len(ranks[0]["seconds"]))]
    step = statistics.median(times)
    config = case.config
    model = VideoMllamaConfig.from_dict(config.model)
    packs = all_packs(case, seed)
    work = work_of(packs)
    flops = model_flops(model, work, config.stage, config.lora).total
    rate = flops / step / case.ranks
    phases = {
        name: [statistics.median(record[name] for record in rank["seconds"]) for rank in ranks] for name in (*PHASES, "step")
    }
    peaks = [rank["memory"]["peak"] for rank in ranks]
    found: dict[str, Any] = {
        "name": case.name, "kind": case.kind, "stage": case.stage, "layout": case.layout, "ranks": case.ranks, "deal": case.deal,
        "frames": case.frames, "rows": case.rows, "overrides": [*case.group, *case.sizes],
        "step": step, "all_steps": times, "flops": flops, "tflops": rate / TERA,
        "mfu": None if gpu is None else rate / (gpu.fp8 if config.precision.fp8 != "none" and gpu.fp8 else gpu.bf16),
        "per_second": {"tokens": work.rows / step, "frames": work.frames / step},
        "phases": {name: {"most": max(values), "least": min(values), "ranks": values} for name, values in phases.items()},
        "memory": {"peak": max(peaks), "ranks": peaks, "all": [rank["memory"] for rank in ranks]},
        "encoded": [rank["encoded"] for rank in ranks], "loss": ranks[0]["loss"],
        "predicted": predicted(case, packs, gpu, row),
    }  # fmt: skip
    if "traffic" in ranks[0]:
        found["communication"] = over_ranks([r["traffic"] for r in ranks], [r["traffic"]["step"] for r in ranks])
    return found
