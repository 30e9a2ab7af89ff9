"""Model operations a second, vision and cross-attention included, and their share of what the GPUs can do."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from model.config import VideoMllamaConfig
from moss_train.config.schema import RunConfig
from moss_train.monitors.base import Monitor, Update
from moss_train.planning.flops import Flops, Gpu, model_flops

TERA = 1e12


def ideal_seconds(flops: Flops, gpu: Gpu, config: RunConfig) -> float:
    """Time that the operations need on one GPU at its peak: each part at the peak of the number format that it runs in."""
    precision = config.precision
    fp8 = precision.fp8 != "none"
    tower, text = gpu.peak(precision.fp8_vision), gpu.peak(fp8)
    cross, rest = gpu.peak(fp8 and precision.fp8_cross_layers), gpu.peak()
    return flops.vision / tower + flops.text / text + flops.cross / cross + (flops.projector + flops.head) / rest


class Mfu(Monitor):
    """Model FLOPs utilisation. What is computed again to save memory does not count.

    Args:
        gpu: of every rank; None where its peak is not known: operations a second are given alone.
        device_name: for the sentence that says so.
    """

    def __init__(
        self, config: RunConfig, model_config: VideoMllamaConfig, gpu: Gpu | None, ranks: int, device_name: str
    ) -> None:  # fmt: skip
        self._config = config
        self._model = model_config
        self._gpu = gpu
        self._ranks = ranks
        self._device = device_name

    def started(self, step: int, steps: int) -> None:
        if self._gpu is None and self._device != "cpu":
            print(
                f"moss: no utilisation (MFU) is given: the peak of {self._device!r} is not in the table; operations a second are",
                file=sys.stderr,
                flush=True,
            )

    def measured(self, update: Update) -> dict[str, Any]:
        flops = model_flops(self._model, update.data.work, self._config.stage, self._config.lora)
        record: dict[str, Any] = {
            "tflops": {part: value / TERA for part, value in dataclasses.asdict(flops).items()},
            "tflops_per_second": flops.total / update.seconds / TERA,
        }
        if self._gpu is not None:
            record["mfu"] = ideal_seconds(flops, self._gpu, self._config) / (update.seconds * self._ranks)
        return record
