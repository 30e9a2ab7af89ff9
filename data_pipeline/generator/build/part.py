"""A part of a build: many rows with their media, in a folder that appears when all of it is written."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.generator.build.folder import PART, BuildFolder, write_json
from data_pipeline.generator.build.offline import narration_sample, question_sample
from data_pipeline.generator.build.rows import Row, RowWriter
from data_pipeline.generator.build.sources import ATTEMPTS, Chunks, Clip, story_clip, windows
from data_pipeline.generator.card.tally import Tally
from data_pipeline.generator.gates.duplicates import SIGNATURES, SignatureFile
from data_pipeline.generator.plan import Rejection
from data_pipeline.realtime.render import to_sample
from data_pipeline.realtime.scenario import to_scenario
from data_pipeline.realtime.values import dialogue_to_dict
from data_pipeline.schema import Sample
from data_pipeline.shards.schema import sample_to_dict
from data_pipeline.timeline.values import timeline_to_dict

VIDEO_FILE = "0.mp4"
EVALUATED = ("validation", "test")
_LONGEST_KEY = 56
"""Letters of a video's id that stay in keys, which are names of files in tars."""
"""Splits of which scenarios are made."""
Outcome = tuple[str, Clip, "Row | Rejection"]
"""Id of the row, its clip, and what came of it."""


@dataclass(frozen=True)
class PartTask:
    """Which part is to be made."""

    split: str
    number: int
    rows: int
    """Of the world: how many; other sources make what their videos give."""


class PartWriter:
    """Writes the files of a part, line by line."""

    def __init__(self, folder: Path, writer: RowWriter, split: str) -> None:
        self.folder = folder
        self._writer = writer
        self._split = split
        self.tally = Tally()
        self.signatures = SignatureFile(folder / SIGNATURES) if writer.config.gates.near_duplicates < 1 else None
        self._files = {name: (folder / name).open("w", encoding="utf-8") for name in self._names()}
        self._media = 0
        self._counts = {"questions": 0, "narration": 0}

    def add(self, identity: str, clip: Clip, outcome: Row | Rejection) -> None:
        """Enter what came of a clip."""
        if isinstance(outcome, Rejection):
            self.tally.reject(outcome.stage, outcome.reason, identity, outcome.behaviour)
            self._line("rejected.jsonl", {"id": identity, **vars(outcome)})
            return
        count = self._writer.count_tokens
        path = self._store_media(identity, clip, outcome)
        dialogue = outcome.dialogue
        self._line("rows.jsonl", dialogue_to_dict(dialogue))
        self._line("timelines.jsonl", timeline_to_dict(outcome.timeline))
        self._sample("samples.jsonl", identity, to_sample(dialogue, count), path, clip)
        if self._split in EVALUATED and clip.whole:
            self._line("scenarios.jsonl", to_scenario(dialogue, path, len(dialogue.frame_times)))
        self._offline(identity, clip, outcome, path)
        self.tally.add(dialogue, count)
        if self.signatures is not None:
            self.signatures.add(dialogue)

    def close(self) -> dict[str, Any]:
        """Finish all files; returns what part.json holds."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if self.signatures is not None:
            self.signatures.close()
        return {"rows": int(self.tally.sums["rows"]), "media": self._media, **self._counts, "tally": self.tally.to_dict()}

    def _names(self) -> list[str]:
        names = ["rows.jsonl", "timelines.jsonl", "samples.jsonl", "rejected.jsonl", "questions.jsonl", "narration.jsonl"]
        return [*names, "scenarios.jsonl"] if self._split in EVALUATED else names

    def _line(self, name: str, values: Any) -> None:
        self._files[name].write(json.dumps(values, ensure_ascii=False) + "\n")

    def _sample(self, name: str, key: str, sample: Sample, path: str, clip: Clip) -> None:
        sample.dataset = self._writer.config.source.name or self._writer.config.source.kind
        if clip.frames is not None:
            for media in sample.media:
                media.height, media.width = clip.frames.shape[1:3]
                media.rate, media.num_frames = self._writer.config.fps, len(clip.frames)
                media.duration = len(clip.frames) / self._writer.config.fps
        self._line(name, {"key": key, "files": {VIDEO_FILE: path}, **sample_to_dict(sample)})

    def _store_media(self, identity: str, clip: Clip, row: Row) -> str:
        """Path of the clip's file, relative to the part, or absolute where it is somebody else's."""
        if clip.frames is None:
            return os.path.abspath(row.timeline.video)
        from data_pipeline.world.video import encode_mp4

        target = self.folder / "media" / f"{identity}.mp4"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(encode_mp4(clip.frames, self._writer.config.fps, self._writer.config.world.crf))
        self._media += 1
        return f"media/{identity}.mp4"

    def _offline(self, identity: str, clip: Clip, row: Row, path: str) -> None:
        outputs = self._writer.config.outputs
        rng = random.Random(f"offline {self._writer.config.seed} {identity}")
        makers = {"questions": (outputs.questions, question_sample), "narration": (outputs.narration, narration_sample)}
        for name, (share, make) in makers.items():
            wanted = rng.random() < share
            sample = make(row.timeline, clip.frame_times, self._writer.config.fps, rng) if wanted else None
            if sample is not None:
                self._sample(f"{name}.jsonl", f"{identity}-{name}", sample, path, clip)
                self._counts[name] += 1


def write_part(config: BuildConfig, folder: Path, task: PartTask, step: Callable[[], None], writer: RowWriter) -> dict[str, Any]:
    """Make a part; the same bytes whenever and wherever it is made.

    Args:
        step: called after each row.

    Returns:
        What part.json holds.
    """
    target = BuildFolder(folder).part(task.split, task.number)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        part = PartWriter(temporary, writer, task.split)
        for identity, clip, outcome in _outcomes(config, folder, task, writer):
            part.add(identity, clip, outcome)
            if not isinstance(outcome, Rejection):
                step()
        summary = part.close()
        write_json(temporary / PART, summary)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def _outcomes(config: BuildConfig, folder: Path, task: PartTask, writer: RowWriter) -> Iterator[Outcome]:
    if config.source.kind == "world":
        first = task.number * config.rows_per_part
        for index in range(first, first + task.rows):
            yield from _row_of_world(config, task.split, index, writer)
        return
    from data_pipeline.generator.build.together import in_order

    jobs: list[tuple[str, Clip]] = []
    for timeline in Chunks(folder).read(task.split, task.number):
        for number, clip in enumerate(windows(timeline, config.fps, config.max_frames)):
            for repeat in range(config.rows.per_video):
                jobs.append((f"{_safe(timeline.id)}-w{number}-{repeat}", clip))
    work = lambda job: (job[0], job[1], writer.write(job[1], job[0], job[0]))  # noqa: E731
    yield from in_order(work, jobs, int(config.model.get("concurrency", 8)) if config.author == "model" else 1)


def _row_of_world(config: BuildConfig, split: str, index: int, writer: RowWriter) -> Iterator[Outcome]:
    identity = f"{split}-{index:07d}"
    for attempt in range(ATTEMPTS):
        clip = story_clip(config, split, index, attempt)
        outcome = writer.write(clip, identity, f"{split} {index} {attempt}")
        yield identity, clip, outcome
        if not isinstance(outcome, Rejection):
            return


def _safe(identity: str) -> str:
    """An id as the key of a sample, which holds no dot and no slash; different ids have different keys."""
    key = "".join(c if (c.isascii() and c.isalnum()) or c in "_-" else "_" for c in identity)[:_LONGEST_KEY]
    return key if key == identity else f"{key}-{hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()}"
