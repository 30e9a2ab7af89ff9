"""What a checkpoint costs: how long the loop is blocked, what training pays while it is written, how fast it is read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from moss_train.bench.saving import Saver
from moss_train.bench.subject import Subject, overrides_of, with_model
from moss_train.checkpoint.integrity import check_checkpoint
from moss_train.checkpoint.load import load_training_state
from moss_train.config.compose import compose
from moss_train.parallel.layout import ParallelLayout
from moss_train.verify.engine.subject import check_config, learnable_pack

FULL_PARAMETERS = 10.67e9
"""Of the 11B model."""


def cut_config() -> VideoMllamaConfig:
    """Widths and vocabulary of the 11B model; two decoder layers of forty and eight tower layers of forty."""
    return VideoMllamaConfig(
        vision=VisionConfig(num_hidden_layers=6, num_global_layers=2, intermediate_layers_indices=(1, 2, 3, 4, 5)),
        text=TextConfig(num_hidden_layers=2, cross_attention_layers=(1,)),
    )


MODELS: dict[str, Callable[[], VideoMllamaConfig]] = {"cut": cut_config, "tiny": check_config}


class BenchRun:
    """A run on one rank: the model, its optimizer and the real step, on the same synthetic micro-batch again and again.

    Args:
        config: the model.
        folder: of the run.
        device: where it runs.
        samples: (rows, frames) of the micro-batch.
        asynchronous: write checkpoints in the background.
    """

    def __init__(
        self, config: VideoMllamaConfig, folder: Path, device: torch.device, samples: list[tuple[int, int]], asynchronous: bool
    ) -> None:
        precision = "bf16" if device.type == "cuda" else "fp32"
        more = ["modules=transformer_engine"] if device.type == "cuda" else ["modules=torch"]
        run = with_model(compose(overrides_of("pt2", precision=precision, recompute="full", more=more)), config)
        self._subject = Subject(run, device, weights="seeded")
        self.layout: ParallelLayout = self._subject.layout
        self.models, self.optimization = self._subject.models, self._subject.optimization
        self.pack = learnable_pack(config, 1, samples)
        self.checkpointer = Saver(self._subject, folder, asynchronous).checkpointer

    @property
    def done(self) -> int:
        """Steps so far."""
        return self._subject.done

    def train(self) -> tuple[float, list[str]]:
        """One step: its seconds, and the kinds of events of a checkpoint that is being written."""
        begin = time.perf_counter()
        statistics = self._subject.train([self.pack], rate=1e-4, signals=self.checkpointer.signals())
        events = self.checkpointer.poll(statistics.signals)
        if self.layout.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin, [event.kind for event in events]


def measure(run: BenchRun, saves: int, steps: int) -> dict[str, Any]:
    """Train, save, train on while it is written, and load the last one.

    Args:
        run: ready to train.
        saves: checkpoints.
        steps: timed steps without a checkpoint, and at least as many behind each.
    """
    for _ in range(3):
        run.train()
    begin = time.perf_counter()
    run.checkpointer.wait_until_ready()  # host memory is made while training goes on; here it would disturb the timing
    reserve_seconds = time.perf_counter() - begin
    alone = [run.train()[0] for _ in range(steps)]
    rows = [_save(run, steps) for _ in range(saves)]
    newest = run.checkpointer.newest
    assert newest is not None
    state = sum(file.stat().st_size for file in newest.glob("*.safetensors"))
    modules: list[torch.nn.Module] = [*run.models.chunks, run.models.unit]
    parameters = sum(p.numel() for module in modules for p in module.parameters())
    return {
        "parameters": parameters,
        "state_bytes": state,
        "bytes_per_parameter": state / parameters,
        "reserve_seconds": reserve_seconds,
        "step_seconds_alone": median(alone),
        "saves": rows,
        "load": _load(run, newest, state),
        "floors": _floors(run, newest.parent),
        "full_model_bytes": state / parameters * FULL_PARAMETERS,
    }


def _save(run: BenchRun, steps: int) -> dict[str, Any]:
    """One checkpoint, with training behind it until it is published and `steps` steps more."""
    begin = time.perf_counter()
    events = run.checkpointer.begin(run.done, {})
    stall = time.perf_counter() - begin
    during: list[float] = []
    published = "published" in [event.kind for event in events]
    while not published:
        seconds, kinds = run.train()
        during.append(seconds)
        published = "published" in kinds
    written = time.perf_counter() - begin
    after = [run.train()[0] for _ in range(steps)]
    return {
        "stall_seconds": stall,
        "publish_seconds": written,
        "steps_during": len(during),
        "step_seconds_during": median(during) if during else None,
        "step_seconds_after": median(after),
    }


def _load(run: BenchRun, checkpoint: Path, state: int) -> dict[str, Any]:
    weights = {n: p.detach().double().sum().item() for n, p in run.models.unit.named_parameters()}
    parts: dict[str, Callable[[], object]] = {
        "check": lambda: check_checkpoint(checkpoint),
        "read": lambda: load_training_state(
            checkpoint, run.models.chunks, run.models.unit, run.optimization, run.layout, verify="nothing"
        ),
    }
    figures: dict[str, Any] = {}
    for name, part in parts.items():
        begin = time.perf_counter()
        part()
        if run.layout.device.type == "cuda":
            torch.cuda.synchronize()
        figures[f"{name}_seconds"] = time.perf_counter() - begin
        figures[f"{name}_gb_per_second"] = state / figures[f"{name}_seconds"] / 1e9
    figures["changed_weights"] = sum(
        p.detach().double().sum().item() != weights[n] for n, p in run.models.unit.named_parameters()
    )
    return figures


def _floors(run: BenchRun, folder: Path, size: int = 2 << 30) -> dict[str, Any]:
    """GB/s of a plain copy to page-locked host memory, and of a plain file that is written and synchronised."""
    figures: dict[str, Any] = {}
    if run.layout.device.type == "cuda":
        source = torch.zeros(size, dtype=torch.uint8, device=run.layout.device)
        target = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        for _ in range(2):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            figures["copy_gb_per_second"] = size / (time.perf_counter() - begin) / 1e9
    block, path = os.urandom(64 << 20), folder / "floor.bin"
    begin = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(size // len(block)):
            file.write(block)
        os.fsync(file.fileno())
    figures["file_gb_per_second"] = size / (time.perf_counter() - begin) / 1e9
    path.unlink()
    return figures
