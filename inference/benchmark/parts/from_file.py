"""Time to first token from a video file on the disk: decoding and fitting the frames included."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from inference.benchmark.bench import Bench
from inference.benchmark.generation import answer
from inference.benchmark.statistics import describe
from inference.benchmark.workload import Workload, prompt

RATE = 30
"""Frames a second of the clip that is made."""
BITS_PER_SECOND = 2_223_000
"""Of the clip of the published figures."""


def make_clip(path: Path, work: Workload) -> Path:
    """An H.264 file of a moving pattern, as long and as large as the published figures' clip.

    Raises:
        ImportError: PyAV is not installed.
    """
    import av
    import numpy as np

    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.random((1, 3, 12, 20), dtype=np.float32))
    size = (work.clip_height, work.clip_width)
    picture = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0]
    texture = (picture.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = work.clip_width, work.clip_height, "yuv420p"
        stream.bit_rate = BITS_PER_SECOND
        for number in range(round(work.clip_seconds * RATE)):
            shifted = np.roll(texture, (number, 2 * number), axis=(0, 1))
            for packet in stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def measure(bench: Bench) -> dict[str, Any]:
    """Decode, fit, upload, encode and answer, after one run that is not counted.

    Returns:
        `ttft_s` (mean) and, of each run, the seconds of reading the file and of all.
    """
    with tempfile.TemporaryDirectory() as temporary:
        video = bench.setup.video
        if video is None:
            folder = bench.setup.work_dir or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            work = bench.workload
            video = folder / f"clip-{work.clip_width}x{work.clip_height}-{work.clip_seconds:g}s.mp4"
            if not video.exists():
                bench.say(f"making {video.name}")
                make_clip(video, work)
        return _measure(bench, video)


def _measure(bench: Bench, video: Path) -> dict[str, Any]:
    from data_pipeline.media.decode import frames_at, probe_video

    work, meter = bench.workload, bench.meter
    engine = bench.engine(rows=work.frames + work.text_rows + 1, frames=work.frames)
    info = probe_video(video)
    length = info.num_frames / info.fps
    times = [length * i / work.frames for i in range(work.frames)]
    rows = prompt(bench.config, work.frames, work.text_rows)
    size = bench.config.vision.image_size
    reading, whole = [], []
    for _ in range(1 + min(3, work.runs)):
        meter.sync()
        begin = meter.now()
        frames = frames_at(video, times, size)
        reading.append(meter.now() - begin)
        answer(engine, rows, 1, meter, frames)
        whole.append(meter.now() - begin)
    runs = {"reading_s": reading[1:], "ttft_s": whole[1:]}
    return {
        "ttft_s": sum(whole[1:]) / len(whole[1:]),
        "runs": runs,
        "statistics": {name: describe(values) for name, values in runs.items()},
        "video": {"frames": info.num_frames, "seconds": length, "size": [info.width, info.height], "taken": work.frames},
    }
