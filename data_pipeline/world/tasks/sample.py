"""From a task's name and a seed to a finished sample: text and files."""

from __future__ import annotations

import numpy as np

from data_pipeline.schema import Sample
from data_pipeline.world import scene
from data_pipeline.world.render import render
from data_pipeline.world.tasks.captions import caption_sample
from data_pipeline.world.tasks.dense import dense_sample
from data_pipeline.world.tasks.questions import question_sample
from data_pipeline.world.tasks.realtime import draw_prompt, realtime_sample
from data_pipeline.world.tasks.text import text_sample
from data_pipeline.world.tasks.tracking import tracking_sample
from data_pipeline.world.video import encode_jpeg, encode_mp4
from model.errors import InputError

SAMPLE_TASKS = ("dense", "text", "cap", "trk", "qa", "rt")
SEEDS_PER_SAMPLE = {"dense": 8, "cap": 4}
"""Single frames in one sample; the other tasks take one seed each."""


def build_sample(task: str, first: int, index: int) -> tuple[str, Sample, dict[str, bytes]]:
    """(key, sample, content of each media file) of sample `index` of a task whose seeds begin at `first`.

    Raises:
        InputError: unknown task.
    """
    stride = SEEDS_PER_SAMPLE.get(task, 1)
    seed = first + index * stride
    files: dict[str, bytes] = {}
    if task == "text":
        sample = text_sample(seed)
    elif task in ("dense", "cap"):
        clips = [scene.still(seed + i) for i in range(stride)]
        frames = np.concatenate([render(clip) for clip in clips])
        if task == "dense":
            sample, files = dense_sample(clips), {"0.mp4": encode_mp4(frames)}
        else:
            sample, files = caption_sample(clips), {f"{i}.jpg": encode_jpeg(frame) for i, frame in enumerate(frames)}
    elif task in ("trk", "qa"):
        clip, direction = scene.moving(seed)
        sample = (tracking_sample if task == "trk" else question_sample)(clip, direction)
        files = {"0.mp4": encode_mp4(render(clip))}
    elif task == "rt":
        clip = scene.eventful(seed)
        sample, files = realtime_sample(clip, draw_prompt(clip)), {"0.mp4": encode_mp4(render(clip))}
    else:
        raise InputError(f"task is {task!r}; use one of {', '.join(SAMPLE_TASKS)}")
    sample.dataset, sample.source, sample.license = task, f"moss-train world, seed {seed}", "Apache-2.0"
    _describe(sample)
    return f"{task}-{seed}", sample, files


def build_samples(task: str, first: int, count: int, chunk: int, start: int) -> list[tuple[str, Sample, dict[str, bytes]]]:
    """Samples `start` to `start + chunk - 1`, as far as there are `count`."""
    return [build_sample(task, first, i) for i in range(start, min(count, start + chunk))]


def _describe(sample: Sample) -> None:
    """Fill in what is known of the files, so that nobody has to open them for it."""
    for media in sample.media:
        media.width = media.height = scene.FRAME_SIZE
        if media.type == "video":
            count = len(media.frame_times) if media.frame_times else media.max_frames
            media.rate, media.duration, media.num_frames = 1.0, float(count or 0), count
