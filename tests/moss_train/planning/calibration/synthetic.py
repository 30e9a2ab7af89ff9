"""Results as `moss bench train` writes them, of a card whose rates are known."""

from __future__ import annotations

import dataclasses
import functools
from random import Random
from typing import Any

from moss_train.config.compose import compose
from moss_train.planning.calibration.compare import predicted_peak, predicted_seconds
from moss_train.planning.calibration.results import Case
from moss_train.planning.flops import PEAK, Work
from moss_train.planning.rates import Rates, Row

CUT = ["model.text.num_hidden_layers=10", "model.text.cross_attention_layers=[3,8]"]
SAMPLES = {0: [[(2048, 0), (2048, 0)]], 8: [[(2048, 8), (2048, 0)]], 64: [[(4096, 64)]], 256: [[(1024, 128), (3072, 128)]]}


def overrides(precision: str, frames: int, *more: str) -> list[str]:
    words = ["precision=fp8", "precision.fp8_cross_layers=true", "precision.fp8_vision=true"] if precision == "fp8" else []
    return ["stage=pt2", "run_dir=unused", *CUT, f"stage.max_frames_per_pack={frames}", *words, *more]


CASES: list[tuple[str, list[str], list[list[tuple[int, int]]]]] = [
    (f"{precision}, {frames} frames", overrides(precision, frames), SAMPLES[frames])
    for precision in ("bf16", "fp8") for frames in (0, 8, 64, 256)
] + [
    ("attention kept", overrides("bf16", 64, "vision.keep_mode=attention"), SAMPLES[64]),
    ("recompute", overrides("bf16", 64, "parallel.recompute=full"), SAMPLES[64]),
    ("few rows", overrides("bf16", 0), [[(256, 0)]]),
    ("fewer rows", overrides("bf16", 0), [[(64, 0)]]),
    ("torch", overrides("bf16", 8, "modules=torch", "vision.layers=torch"), SAMPLES[8]),
    ("torch, more", overrides("bf16", 64, "modules=torch", "vision.layers=torch"), SAMPLES[64]),
    ("input kept", overrides("bf16", 64, "vision.keep_mode=input"), SAMPLES[64]),
    ("four micro-batches", overrides("bf16", 8), [SAMPLES[8][0]] * 4),
]  # fmt: skip


@functools.cache
def _cases() -> list[Case]:
    return [_case_of(*case) for case in CASES]


def _case_of(name: str, words: list[str], samples: list[list[tuple[int, int]]]) -> Case:
    every = [sample for pack in samples for sample in pack]
    rows, frames = sum(n for n, _ in every), sum(f for _, f in every)
    work = Work(rows, frames, sum(n * (n + 1) // 2 for n, _ in every), sum(n * f // 2 for n, f in every), head_rows=rows - frames)
    return Case(name, compose(words), tuple(map(tuple, samples)), work, True, {}, None, None)


def results(rates: Rates, gpu: str = "H100", count: int = len(CASES), noise: float = 0.0) -> dict[str, Any]:
    """A file of results: the first `count` cases on a card of these rates, seconds up to `noise` longer or shorter."""
    random = Random(0)
    cases = []
    for (name, words, samples), case in zip(CASES[:count], _cases(), strict=False):
        seconds = predicted_seconds(case, PEAK[gpu], Row(rates, True, ""))
        seconds = {phase: max(value, 1e-4) for phase, value in seconds.items()}  # a phase with nothing to do takes a moment
        seconds = {phase: value * random.uniform(1 - noise, 1 + noise) for phase, value in seconds.items()}
        cases.append(
            {
                "name": name, "overrides": words, "samples": samples, "work": dataclasses.asdict(case.work), "updates": True,
                "seconds": {**seconds, "data_wait": 0.0, "step": sum(seconds.values())},
                "memory": {"peak": predicted_peak(case)},
            }
        )  # fmt: skip
    return {"date": "2026-11-28", "hardware": {"device": f"NVIDIA {gpu}", "memory": PEAK[gpu].memory}, "cases": cases}
