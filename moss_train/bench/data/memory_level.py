"""Memory of a loader that runs for long: small texts, images and videos, resident memory noted now and then."""

from __future__ import annotations

import io
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from data_pipeline.world.video import encode_mp4
from moss_train.bench.data.meter import Say
from moss_train.bench.data.setups import loader_of

EACH = 200
"""Different samples of each kind; they come again and again."""
IMAGE_SIZE = 56
MIB = 2**20


@dataclass
class Memory:
    """Resident memory over a run of the loader."""

    samples: int
    every: int
    """Samples between two readings."""
    mib: list[float]
    """Readings after each `every` samples."""
    slope: float
    """MiB per 10,000 samples: least squares over the readings of the second half."""
    growth: float
    """MiB, mean of the last tenth less mean of the tenth behind the first quarter."""
    kinds: dict[str, int]
    """Samples by dataset."""


def measure(work_dir: Path, samples: int, every: int, say: Say) -> Memory:
    """Draw `samples` samples through the loader in this process."""
    folders = {kind: work_dir / "memory" / kind for kind in ("text", "image", "video")}
    for kind, folder in folders.items():
        if not folder.exists():
            write_samples(folder, _samples(kind), samples_per_shard=EACH // 4)
    loader = loader_of(
        folders, IMAGE_SIZE, mixture={"text": 0.6, "image": 0.3, "video": 0.1}, shuffle_buffer=100, packing_buffer=16,
        samples_per_pack=None, global_data_workers=2, stage={"sequence_length": 256, "max_frames_per_pack": 16},
    )  # fmt: skip
    drawn, kinds = 0, dict.fromkeys(folders, 0)
    readings: list[float] = []
    try:
        while drawn < samples:
            for key in next(loader).sample_keys:
                if not key:
                    continue
                kinds[key.partition("/")[0]] += 1
                drawn += 1
                if drawn % every == 0 and drawn <= samples:
                    readings.append(_resident())
                    if drawn % (10 * every) == 0:
                        say(f"{drawn} of {samples} samples: {readings[-1]:.0f} MiB")
    finally:
        loader.close()
    return _summary(samples, every, readings, kinds)


def _resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def _summary(samples: int, every: int, readings: list[float], kinds: dict[str, int]) -> Memory:
    values = np.asarray(readings)
    half, tenth = values[len(values) // 2 :], max(1, len(values) // 10)
    slope = float(np.polyfit(np.arange(len(half)) * every, half, 1)[0]) * 10_000 if len(half) > 1 else 0.0
    early = values[len(values) // 4 :][:tenth]
    growth = float(values[-tenth:].mean() - early.mean())
    return Memory(samples, every, [round(v, 1) for v in readings], round(slope, 3), round(growth, 2), kinds)


def _samples(kind: str) -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
    generator = np.random.default_rng(0)
    for number in range(EACH):
        media: list[Media] = []
        members: dict[str, bytes] = {}
        marker = ""
        if kind == "image":
            media, marker = [Media(type="image", file="0.jpg")], "<|image|>"
            buffer = io.BytesIO()
            Image.fromarray(_noise(generator, 1)[0]).save(buffer, "JPEG")
            members["0.jpg"] = buffer.getvalue()
        elif kind == "video":
            media, marker = [Media(type="video", file="0.mp4", fps=1.0, min_frames=1, max_frames=4)], "<|video|>"
            members["0.mp4"] = encode_mp4(_noise(generator, 4), 1.0)
        messages = [
            Message(role="user", content=f"{marker}what moves ?"),
            Message(role="assistant", content=f"the ball number {number} moves"),
        ]
        yield f"{kind}{number}", Sample(kind=kind, messages=messages, media=media), members


def _noise(generator: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
