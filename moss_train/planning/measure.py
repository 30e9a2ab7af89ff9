"""What a configuration really takes on this GPU: some steps on synthetic micro-batches, and the peaks of every phase.

No data, no checkpoint: the modules, optimizer and step of a run, random weights, packs of one kind. What is
measured is torch's allocator: bytes allocated at most within a phase, bytes kept after a layer, bytes reserved in the end, and
what the process holds beside them (driver context, communication).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.engines.adapters import adapt
from moss_train.engines.from_config import encode_settings_of, models_of
from moss_train.engines.models import Models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.sizes import check_sizes
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.step import DecoupledStep, StepSettings

STEPS = 3
"""Steps of one case: the last is measured, when the optimizer's states are there."""


@dataclass
class Measured:
    """Bytes of the last step of a case."""

    weights: int
    """Allocated once the modules are built."""
    static: int
    """Allocated between steps: weights, gradients, optimizer states."""
    peaks: dict[str, int]
    """Most allocated at once, by phase: encode, forward, backward, return, update."""
    seconds: dict[str, float]
    """By phase, the device waited for at each end."""
    reserved: int
    """Most reserved by the allocator."""
    beside: int
    """Of the process and not of the allocator: driver context, libraries, communication."""
    kept_by_layer: list[tuple[str, int]] = field(default_factory=list)
    """Allocated after each decoder layer, in the forward pass of the first micro-batch."""

    @property
    def peak(self) -> int:
        """Most allocated at once in the whole step."""
        return max(self.peaks.values())


class Watch:
    """Peaks and seconds by phase; stands in for the step's own clock of phases."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peaks: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.layers: list[tuple[str, int]] = []
        self._began = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.begin()
        yield
        self.end("backward" if name == "decode" else name)

    def begin(self) -> None:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        self._began = time.perf_counter()

    def end(self, name: str) -> None:
        """What was taken since `begin` counts towards `name`."""
        torch.cuda.synchronize(self._device)
        self.peaks[name] = max(self.peaks.get(name, 0), torch.cuda.max_memory_allocated(self._device))
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self._began

    def clear(self) -> None:
        self.peaks, self.seconds, self.layers = {}, {}, []

    def follow(self, models: Models) -> None:
        """Note what is allocated after each decoder layer, and part the decoder's forward pass from what comes behind it."""
        for chunk in models.chunks:
            decoder: Any = chunk.decoder
            for layer in decoder.layers:
                name = type(layer).__name__
                layer.register_forward_hook(
                    lambda *_, name=name: self.layers.append((name, torch.cuda.memory_allocated(self._device)))
                )

            def split(*_: Any) -> None:
                self.end("forward")
                self.begin()

            decoder.register_forward_hook(split)


def measure(
    config: RunConfig, samples: Sequence[Sequence[tuple[int, int]]], layout: ParallelLayout, steps: int = STEPS
) -> Measured:
    """Run steps of one case and look at the last.

    Args:
        config: model, stage, precision, recompute, vision and optimizer; data and run folder play no part.
        samples: (rows, frames) of the samples of each micro-batch.
        layout: this rank's place.
    """
    device = layout.device
    models, optimization, step = _subject(config, layout)
    weights = torch.cuda.memory_allocated(device)
    watch = Watch(device)
    watch.follow(models)
    step.phases = watch  # type: ignore[assignment]
    batches = [synthetic_pack(models.config, index, sizes) for index, sizes in enumerate(samples)]
    torch.cuda.reset_peak_memory_stats(device)
    optimization.set_learning_rates(0.0, 0.0)
    static = 0
    for _ in range(steps):
        watch.clear()
        static = torch.cuda.memory_allocated(device)
        step.accumulate(batches)
        with watch("update"):
            optimization.update()
    watch.peaks.pop("statistics", None)
    torch.cuda.synchronize(device)
    total = torch.cuda.get_device_properties(device).total_memory
    free, reserved = torch.cuda.mem_get_info(device)[0], torch.cuda.memory_reserved(device)
    return Measured(
        weights=weights,
        static=static,
        peaks=watch.peaks,
        seconds=watch.seconds,
        reserved=torch.cuda.memory_stats(device)["reserved_bytes.all.peak"],
        beside=total - free - reserved,
        kept_by_layer=watch.layers[: models.config.text.num_hidden_layers],
    )


def _subject(config: RunConfig, layout: ParallelLayout) -> tuple[Models, Optimization, DecoupledStep]:
    placed = replace(layout, sizes=config.parallel)
    with torch.device(layout.device):
        models = models_of(config, placed)
    adapt(models, config.lora, config.stage, config.train.seed)
    freeze(models, config.stage, config.lora)
    optimization = Optimization(
        models.chunks, models.unit, models.transformer_config, placed, config.optimizer, config.precision
    )  # fmt: skip
    settings = StepSettings(
        silence_token_weight=1.0, silence_id=None, encode=encode_settings_of(config, models), dataset_names=("synthetic",),
        overlap_grad_reduce=config.train.overlap_grad_reduce,
    )  # fmt: skip
    return models, optimization, DecoupledStep(models, optimization, placed, settings)


def synthetic_pack(config: VideoMllamaConfig, seed: int, samples: Sequence[tuple[int, int]]) -> PackedMicroBatch:
    """Random tokens and pixels; frames stand at equal distances, every row but images' and samples' last has a target.

    Args:
        samples: (rows, frames) of each sample.
    """
    generator = torch.Generator().manual_seed(seed)
    size = config.vision.image_size
    ids, targets, positions, begins, ends, places = [], [], [], [], [], []
    bounds, totals = [0], [0]
    for rows, frames in samples:
        marker = torch.zeros(rows, dtype=torch.bool)
        marker[torch.arange(frames) * max(rows // max(frames, 1), 1)] = True
        words = torch.randint(0, config.text.vocab_size, (rows,), generator=generator)
        tokens = torch.where(marker, config.image_token_id, words)
        following = torch.full((rows,), IGNORE_INDEX)
        following[:-1] = torch.where(marker[1:], IGNORE_INDEX, tokens[1:])
        ids.append(tokens)
        targets.append(following)
        positions.append(torch.arange(rows))
        begins.append(torch.full((rows,), totals[-1]))
        ends.append(totals[-1] + marker.long().cumsum(0))
        places.append(marker.nonzero().flatten())
        bounds.append(bounds[-1] + rows)
        totals.append(totals[-1] + frames)
    target = torch.cat(targets)
    return PackedMicroBatch(
        input_ids=torch.cat(ids), targets=target, position_ids=torch.cat(positions),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32), cu_frames=torch.tensor(totals, dtype=torch.int32),
        frame_begin=torch.cat(begins).int(), frame_end=torch.cat(ends).int(), frame_positions=torch.cat(places),
        frames=torch.randint(0, 256, (totals[-1], 3, size, size), generator=generator, dtype=torch.uint8),
        aspect_ratio_ids=torch.ones(totals[-1], dtype=torch.int64), token_class=(target >= 0).to(torch.int8),
        sample_keys=[f"synthetic/{i}" for i in range(len(samples))], dataset_index=[0] * len(samples),
    )  # fmt: skip


@contextmanager
def world(config: RunConfig) -> Iterator[ParallelLayout]:
    """The ranks of this machine's GPUs that a launcher has started, or one rank.

    Raises:
        InputError: there is no GPU, or the layout does not fit the ranks.
    """
    if not torch.cuda.is_available():
        raise InputError("moss plan measure runs steps on a GPU, but torch sees no CUDA device; run it where one is")
    check_sizes(config.parallel, int(os.environ.get("WORLD_SIZE", "1")))
    device = resolve_device("cuda")
    start_world(device)
    try:
        yield start_layout(config.parallel, device, config.train.seed)
    finally:
        stop_layout()
        stop_world()
