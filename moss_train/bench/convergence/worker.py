"""One run in a process of its own: `python -m moss_train.bench.convergence.worker JOB.json`.

Each line of its results is `step loss norm`, so that whoever reads has all steps until the process ended, however it did.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch

from data_pipeline.packing.batch import PackedMicroBatch
from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.subject import Subject, subject
from moss_train.config.compose import compose
from moss_train.platform.device import resolve_device
from moss_train.schedule import LearningRate
from moss_train.verify.engine.subject import learnable_pack

NOISE_FRAMES = 32
"""Frames of noise that clips take theirs from; fresh noise for frames of 560 pixels would take longer than a step."""
WARMUP = 0.05
SWITCH = 5e-4
"""Seconds after which the thread that makes packs lets go: a small model's step waits for the host alone."""
_STRIDE = 1_000_003
"""Between the data of two seeds."""


def packs(
    config: VideoMllamaConfig, seed: int, first: int, steps: int, samples: list[tuple[int, int]], count: int
) -> Iterator[list[PackedMicroBatch]]:
    """Fresh micro-batches for every step, made one step ahead in a thread.

    Args:
        seed: of the data.
        first: number of the first step.
        steps: of all.
        samples: (rows, frames) of a micro-batch's samples.
        count: micro-batches of a step.
    """
    generator = torch.Generator().manual_seed(seed)
    size = config.vision.image_size
    noise = torch.randint(-20, 21, (NOISE_FRAMES, 3, size, size), generator=generator, dtype=torch.int16)

    def make(step: int) -> list[PackedMicroBatch]:
        begin = seed * _STRIDE + step * count
        return [learnable_pack(config, begin + index, samples, noise=noise) for index in range(count)]

    with ThreadPoolExecutor(1, thread_name_prefix="packs") as pool:
        ahead = pool.submit(make, first)
        for step in range(first, steps):
            ready = ahead.result()
            ahead = pool.submit(make, min(step + 1, steps - 1))
            yield ready


def train(built: Subject, job: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Loss and gradient norm of every step.

    Args:
        built: fresh.
        job: steps, rate, samples, micro_batches, seed.
    """
    samples = [tuple(sample) for sample in job["samples"]]
    rate = LearningRate("cosine", job["rate"], 0.0, WARMUP, job["steps"])
    for step, batches in enumerate(packs(built.model_config, job["seed"], 0, job["steps"], samples, job["micro_batches"])):
        statistics = built.step.accumulate(batches)
        built.optimization.set_learning_rates(rate(step), rate(step))
        yield statistics.loss, built.optimization.update()


def main(path: Path) -> int:
    """Run a job until its steps are done or its time is up; 2 where this machine cannot."""
    job = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH)
    device = resolve_device(job["device"])
    begin = time.time()
    with Path(job["out"]).open("w", encoding="utf-8", buffering=1) as out:
        try:
            with subject(
                compose(job["overrides"]), device, weights="seeded", micro_batches=job["micro_batches"]
            ) as built:  # fmt: skip
                gc.freeze()  # what is built stays, and is not looked through again and again
                out.write(f"# {time.time() - begin:.2f} seconds to build\n")
                for step, (loss, norm) in enumerate(train(built, job)):
                    out.write(f"{step} {loss:.7g} {norm:.7g}\n")
                    if job["deadline"] is not None and time.time() > job["deadline"]:
                        out.write("# time was up\n")
                        break
        except InputError as error:
            out.write(f"# refused: {error}\n")
            return 2
    return 0


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)  # nothing is left to be said, and libraries' threads may linger
