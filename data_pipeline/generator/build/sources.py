"""Where videos come from: stories of the world by index, or timelines of real videos in chunks on the disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.generator.build.variants import Frames, disturb, draw_variant
from data_pipeline.timeline.timeline import Timeline
from data_pipeline.timeline.values import read_timelines, write_timelines
from data_pipeline.world.seeds import SPLITS
from model.errors import InputError

ATTEMPTS = 8
"""Stories that are tried for one row of the world."""
WINDOW = "window"
"""Entry of `Timeline.meta` of a window: its seconds of the whole video."""
LEAST_WINDOW = 2
"""Frames; a shorter rest of a long video is left out."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video to write dialogues about."""

    timeline: Timeline
    frame_times: tuple[float, ...]
    """Seconds of the frames that are shown."""
    frames: Frames | None = None
    """Pixels of a clip of the world; None where there is a file."""
    whole: bool = True
    """Whether the frames are those of the whole file, from its start on."""


def story_clip(config: BuildConfig, split: str, index: int, attempt: int) -> Clip:
    """The clip of one attempt at row `index` of the world: a pure function of its arguments."""
    from data_pipeline.world.story import build_story
    from data_pipeline.world.story.seeds import STORY_SPAN, first_story_seed

    world = config.world
    place = index * ATTEMPTS + attempt
    if place >= STORY_SPAN:
        raise InputError(
            f"rows.{split} goes beyond the {STORY_SPAN // ATTEMPTS} clips of a world; use another world.world as well"
        )
    seed = first_story_seed(split, world.world) + place
    knobs = {name: int(value) if float(value).is_integer() else value for name, value in world.knobs.items()}
    story = build_story(world.level, seed, fps=config.fps, seconds=world.seconds, size=world.size, **knobs)
    rng = random.Random(f"variant {config.seed} {seed}")
    kind = draw_variant(rng, world.variants)
    timeline, frames = disturb(kind, story.timeline(), story.render(), story.frame_times, rng)
    meta = {**timeline.meta, "variant": kind} if kind != "plain" else timeline.meta
    return Clip(timeline=dataclasses.replace(timeline, meta=meta), frame_times=story.frame_times, frames=frames)


def split_of(key: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a video: the same for equal keys, whatever else there is."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest) / 2**64 * sum(shares.values())
    order = [name for name in SPLITS if shares.get(name)]  # whatever order they are written in
    for name in order:
        point -= shares[name]
        if point < 0:
            return name
    return order[-1]


def windows(timeline: Timeline, fps: float, max_frames: int) -> list[Clip]:
    """A timeline as clips of at most `max_frames` frames; what was not seen in a window is not in its timeline."""
    count = max(1, math.ceil(timeline.duration * fps - 1e-6))
    found = []
    for first in range(0, count, max_frames):
        times = tuple(i / fps for i in range(first, min(count, first + max_frames)))
        if len(times) < LEAST_WINDOW:
            continue
        end = timeline.duration if first + max_frames >= count else (first + max_frames) / fps
        part = timeline if count <= max_frames else cut(timeline, times[0], end)
        found.append(Clip(timeline=part, frame_times=times, whole=first == 0))
    return found


def cut(timeline: Timeline, begin: float, end: float) -> Timeline:
    """What somebody can know who sees seconds `begin` to `end` alone; times stay those of the whole video.

    States are clipped; anything else that began before or is known only later is left out, and so are questions whose evidence
    is not all inside.
    """
    last = end >= timeline.duration
    kept = []
    for s in timeline.segments:
        over = s.begin >= end or (s.end is not None and s.end <= begin and s.begin < begin)
        late_known = s.known_from >= end and not (last and s.known_from <= end)
        if over or late_known or (s.level != "state" and s.begin < begin):
            continue
        kept.append(
            dataclasses.replace(
                s,
                begin=max(s.begin, begin),
                end=None if s.end is None else min(s.end, end),
                evident=None if s.evident is None else max(s.evident, begin),
                change=s.change if s.begin >= begin else "",
            )
        )
    asked = tuple(q for q in timeline.questions if q.evidence and begin <= q.evidence[0] and (q.evidence[1] < end or last))
    meta = {**timeline.meta, WINDOW: [begin, end]}
    return dataclasses.replace(timeline, duration=end, segments=tuple(kept), questions=asked, meta=meta)


class Chunks:
    """Timelines on the disk, in files of a part each: `OUT/timelines/<split>/<number>.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "timelines"

    def count(self, split: str) -> int:
        """Parts of a split."""
        return len(list((self.folder / split).glob("*.jsonl")))

    def read(self, split: str, number: int) -> Iterator[Timeline]:
        """The timelines of a part."""
        return read_timelines(self._file(self.folder, split, number))

    def exists(self) -> bool:
        """Whether all are there."""
        return self.folder.is_dir()

    def store(
        self, timelines: Iterator[Timeline], config: BuildConfig, left_out: Callable[[Timeline], str | None]
    ) -> dict[str, object]:
        """Write all of them, atomically, each once and in the split of its key.

        Args:
            left_out: why a video is not wanted, or None.

        Returns:
            How many went where, and why others went nowhere.

        Raises:
            InputError: two videos have one id, or there is none.
        """
        temporary = self.folder.with_name(f".timelines.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        waiting: dict[str, list[Timeline]] = {split: [] for split in SPLITS}
        numbers = dict.fromkeys(SPLITS, 0)
        videos = dict.fromkeys(SPLITS, 0)
        reasons: dict[str, int] = {}
        seen: set[str] = set()
        temporary.mkdir(parents=True)
        try:
            for timeline in timelines:
                if timeline.id in seen:
                    raise InputError(f"two videos have the id {timeline.id!r}; give each one of its own")
                seen.add(timeline.id)
                reason = left_out(timeline)
                if reason is not None:
                    reasons[reason] = reasons.get(reason, 0) + 1
                    continue
                split = split_of(timeline.split_key or timeline.id, config.rows.shares, config.seed)
                videos[split] += 1
                waiting[split].append(timeline)
                if len(waiting[split]) == config.rows_per_part:
                    self._flush(temporary, split, numbers, waiting)
            for split in SPLITS:
                self._flush(temporary, split, numbers, waiting)
            if not any(videos.values()):
                raise InputError(f"source.path {config.source.path} gives no video that can be used{_because(reasons)}")
            report: dict[str, object] = {"videos": videos, "left_out": reasons}
            (temporary / "report.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(temporary, self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return report

    def report(self) -> dict[str, object]:
        """What `store` returned."""
        values: dict[str, object] = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return values

    def _flush(self, folder: Path, split: str, numbers: dict[str, int], waiting: dict[str, list[Timeline]]) -> None:
        if waiting[split]:
            target = self._file(folder, split, numbers[split])
            target.parent.mkdir(parents=True, exist_ok=True)
            write_timelines(target, waiting[split])
            numbers[split] += 1
            waiting[split] = []

    @staticmethod
    def _file(folder: Path, split: str, number: int) -> Path:
        return folder / split / f"{number:06d}.jsonl"


def _because(reasons: Mapping[str, int]) -> str:
    return "" if not reasons else ": " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
