"""Full-HD clips that are like filmed ones in what they cost: textures that move, objects, noise, cuts, B-frames, long groups."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards.processes import run_tasks
from data_pipeline.shards.transcode import TranscodeSettings, transcode
from moss_train.bench.data.meter import Say

Pixels = np.ndarray[Any, Any]
CUT_SECONDS = 7.0


@dataclass(frozen=True)
class ClipSettings:
    """What the clips are; equal settings give the same pictures."""

    count: int = 4
    seconds: float = 12.0
    width: int = 1920
    height: int = 1080
    rate: float = 29.97
    """Frames a second. With it the frames that a sample takes fall on pictures of every kind, also those no other looks at."""
    megabits: float = 5.0
    """A second."""
    gop: int = 250
    """Longest distance between keyframes, in frames: x264's default, as most files on the web have."""
    preset: str = "medium"
    fps: float = 1.0
    """Frames a second that a sample takes."""

    @property
    def indices(self) -> list[int]:
        """Frames that a sample takes."""
        return [int(i * self.rate / self.fps) for i in range(int(self.seconds * self.fps))]

    @property
    def exact_rate(self) -> Fraction:
        """Frames a second as a fraction."""
        return Fraction(self.rate).limit_denominator(1001)


@dataclass(frozen=True)
class Clips:
    """The clips, and the same ones transcoded, as files and as folders of shards."""

    settings: ClipSettings
    originals: list[Path]
    transcoded: list[Path]
    shards: Path
    transcoded_shards: Path


def make_clips(work_dir: Path, settings: ClipSettings, say: Say, *, workers: int | None = None) -> Clips:
    """Render what is not there yet.

    Args:
        work_dir: for clips of all settings.
        settings: of these.
        say: told of each clip that is begun.
        workers: processes that render; None for as many as there are cores.

    Raises:
        InputError: a process was killed.
    """
    name = "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in asdict(settings).values())
    folder = work_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    originals = [folder / f"{number}.mp4" for number in range(settings.count)]
    smaller = [folder / f"{number}-560.mp4" for number in range(settings.count)]
    cores = len(os.sched_getaffinity(0)) if workers is None else workers
    for word, make, paths in (("rendering", _make_original, originals), ("transcoding", _make_smaller, smaller)):
        missing = [(path, settings, number) for number, path in enumerate(paths) if not path.exists()]
        begun = _told(missing, word, settings.count, say)
        for _ in run_tasks(make, begun, max(1, min(cores, len(missing))), lambda steps: None, __name__):
            pass
    from data_pipeline.shards import write_samples  # here, since processes that render need none of what it imports

    for paths, name in ((originals, "shards"), (smaller, "shards-560")):
        if not (folder / name).exists():
            write_samples(folder / name, copies(paths, settings, len(paths)), samples_per_shard=max(1, settings.count // 2))
    (folder / "settings.json").write_text(json.dumps(asdict(settings), indent=2) + "\n")
    return Clips(settings, originals, smaller, folder / "shards", folder / "shards-560")


Task = tuple[Path, ClipSettings, int]
"""Where a clip belongs, of which settings, and its number."""


def _told(tasks: list[Task], word: str, count: int, say: Say) -> Iterator[Task]:
    """The tasks, each told of when a process takes it."""
    for task in tasks:
        say(f"{word} clip {task[2] + 1} of {count}")
        yield task


def _make_original(task: Task, _: Callable[[], None]) -> None:
    path, settings, number = task
    partial = path.with_suffix(".part")
    _render(partial, settings, number)
    os.replace(partial, path)


def _make_smaller(task: Task, _: Callable[[], None]) -> None:
    path, _settings, number = task
    partial = path.with_suffix(".part")
    partial.write_bytes(transcode(path.with_name(f"{number}.mp4"), TranscodeSettings(short_side=560)))
    os.replace(partial, path)


def copies(paths: list[Path], settings: ClipSettings, count: int) -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
    """`count` samples, the clips in turn."""
    for number in range(count):
        messages = [
            Message(role="user", content="<|video|>what moves ?"),
            Message(role="assistant", content=f"the ball number {number} moves"),
        ]
        media = [Media(type="video", file="0.mp4", fps=settings.fps, min_frames=1, max_frames=256)]
        yield (
            f"clip{number}",
            Sample(kind="video", messages=messages, media=media),
            {"0.mp4": paths[number % len(paths)].read_bytes()},
        )


def _render(path: Path, settings: ClipSettings, seed: int) -> None:
    generator = np.random.default_rng(seed)
    cut = int(CUT_SECONDS * settings.rate)
    scene = _Scene(generator, settings.width, settings.height)
    with av.open(str(path), "w", format="mp4") as out:
        options = {"preset": settings.preset, "g": str(settings.gop), "threads": "2"}
        stream = out.add_stream("libx264", rate=settings.exact_rate, options=options)
        stream.width, stream.height, stream.pix_fmt = settings.width, settings.height, "yuv420p"
        stream.bit_rate = int(settings.megabits * 1e6)
        for number in range(int(settings.seconds * settings.rate)):
            if number and number % cut == 0:
                scene = _Scene(generator, settings.width, settings.height)
            frame = av.VideoFrame.from_ndarray(scene.picture(number % cut), format="rgb24")
            frame.pts, frame.time_base = number, 1 / settings.exact_rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


class _Scene:
    """A camera that pans over a textured wall in front of which discs fly."""

    def __init__(self, generator: np.random.Generator, width: int, height: int) -> None:
        self.width, self.height = width, height
        coarse = generator.integers(0, 256, (height // 12 + 40, width // 12 + 40, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((2 * width, 2 * height), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = generator.normal(0, 14, (2 * height, 2 * width, 1)).astype(np.float32)
        self.wall = np.clip(smooth * 0.8 + 20 + grain, 0, 255).astype(np.uint8)
        self.speed = generator.uniform(-3, 3, 2)  # pixels a frame, down and right
        self.places = generator.uniform(0, 1, (6, 2))
        self.speeds = generator.uniform(-0.01, 0.01, (6, 2))
        self.colours = generator.integers(0, 192, (6, 3), dtype=np.uint8)
        self.radii = generator.integers(max(2, height // 20), max(3, height // 8), 6)

    def picture(self, number: int) -> Pixels:
        """RGB uint8 [height, width, 3]."""
        size = np.array([self.height, self.width])
        corner = np.clip(size / 2 + self.speed * number + 6 * np.sin(number / 9), 0, size - 1).astype(int)
        pixels: Pixels = self.wall[corner[0] : corner[0] + self.height, corner[1] : corner[1] + self.width].copy()
        centres = ((self.places + self.speeds * number) % 1 * size).astype(int)
        for (y, x), radius, colour in zip(centres, self.radii, self.colours, strict=True):
            part = pixels[max(y - radius, 0) : y + radius, max(x - radius, 0) : x + radius]
            part[:] = part // 4 + colour
        return pixels
