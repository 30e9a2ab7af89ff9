"""What `moss data generate` makes: all settings with their units, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.realtime.dialogue import BEHAVIOURS
from data_pipeline.realtime.emission import RateConfig
from data_pipeline.world.seeds import SPLITS
from model.errors import InputError

VERSION = "1"
"""Grows whenever the same settings give other rows."""
AUTHORS = ("templates", "model")
VARIANTS = ("plain", "frozen", "stutter", "black")
LANGUAGES = ("en", "zh")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where videos come from, for every source but the world."""

    kind: str = "world"
    """world | videos (a model captions them) | a format of `moss data timeline`, such as captions, subtitles, events or qa."""
    path: str = ""
    """File or folder of annotations or videos."""
    media_root: str = ""
    """Folder of the videos; empty means that of `path`."""
    evident: str = ""
    """begin | middle | end: when a text can be known; empty means as its level says."""
    level: str = ""
    """Level of the segments of a flat list."""
    language: str = ""
    """Of the texts."""
    license: str = ""
    """Of all videos, where the annotations do not say it."""
    name: str = ""
    """Of the data set."""
    split_key: str = ""
    """Field of the annotations that keeps videos in one split."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Clips of the procedural world."""

    level: int = 1
    """1..5: difficulty."""
    world: int = 0
    """0..9: which of ten disjoint worlds."""
    seconds: float = 16.0
    size: int = 64
    """Pixels, height and width."""
    crf: int = 18
    """x264's quality, lower is better."""
    knobs: dict[str, float] = field(default_factory=dict)
    """Fields of the level that are to differ."""
    variants: dict[str, float] = field(default_factory=lambda: {"plain": 1.0})
    """Weights of: plain; frozen (the picture stands still from some frame on); stutter (single frames show the one before again);
    black (frames without any object are black). What is said follows what can be seen."""

    def __post_init__(self) -> None:
        _check_weights_of(self, "variants", "world.", VARIANTS)


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """How many dialogues are made."""

    train: int = 1000
    """For the world: exactly so many."""
    validation: int = 64
    test: int = 64
    per_video: int = 1
    """For every other source: tried for each video (and window)."""
    shares: dict[str, float] = field(default_factory=lambda: {"train": 0.9, "validation": 0.05, "test": 0.05})
    """For every other source: into which split a video falls, by its split key."""

    def __post_init__(self) -> None:
        for name in (*SPLITS, "per_video"):
            if getattr(self, name) < 0:
                raise InputError(f"rows.{name} is {getattr(self, name)}; it must be 0 or more")
        _check_weights_of(self, "shares", "rows.", SPLITS)


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Soft checks: which sound rows are left out all the same."""

    silence_ratio: tuple[float, ...] = (0.0, 1.0)
    """Least and most share of frames at which nothing is said."""
    leak: bool = True
    """Ask every answer again without its evidence: rows whose answer comes all the same are left out."""
    blind: float = 1.0
    """Most share of the answers of a row that somebody expects to guess who knows how often the other rows give each answer to
    each kind of question, and sees no video; 1 switches it off."""
    judge: float = 0.0
    """Least mean mark of the judge, 0..4; 0 asks no judge."""
    near_duplicates: float = 1.0
    """Rows that share so much of their words, whatever the video, count once: 0.5..1, and 1 switches it off."""
    most_equal_answers: float = 1.0
    """Most share that one answer may have among all of its kind of question; 1 switches it off."""
    require_license: bool = False
    decontaminate: tuple[str, ...] = ()
    """Files of evaluation sets: one video id, path or SHA-256 of the file a line; such videos are left out."""

    def __post_init__(self) -> None:
        low_high = self.silence_ratio
        if len(low_high) != 2 or not 0 <= low_high[0] <= low_high[1] <= 1:
            raise InputError(f"gates.silence_ratio is {list(low_high)}; give two rising shares within 0..1")
        for name in ("blind", "most_equal_answers"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"gates.{name} is {getattr(self, name):g}; it must lie above 0 and be at most 1")
        if not 0.5 <= self.near_duplicates <= 1:  # below it most pairs would not be found
            raise InputError(f"gates.near_duplicates is {self.near_duplicates:g}; it must lie within 0.5..1")
        if not 0 <= self.judge <= 4:
            raise InputError(f"gates.judge is {self.judge:g}; marks lie within 0..4")


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What is made of the same videos beside the dialogues, for the stages before the last one."""

    questions: float = 0.0
    """Share of the rows whose clip also becomes a chat of questions and answers (shards/<split>_questions)."""
    narration: float = 0.0
    """Share of the rows whose clip is also narrated wherever something is new (shards/<split>_narration)."""
    shards: bool = True
    """Whether shards are written, or the annotation files alone (samples/<split>.jsonl, for `moss data prepare`)."""
    samples_per_shard: int = 1000
    card: bool = True
    """Whether report.html is written."""


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """One corpus."""

    source: SourceConfig = field(default_factory=SourceConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    rows: RowsConfig = field(default_factory=RowsConfig)
    rows_per_part: int = 500
    """Rows (for other sources: videos) that are made and kept together; the unit of going on after a kill."""
    fps: float = 1.0
    """Frames a second that are shown."""
    max_frames: int = 256
    """In one dialogue; longer videos are cut into windows."""
    behaviours: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BEHAVIOURS, 1.0))
    """Weights."""
    languages: dict[str, float] = field(default_factory=lambda: {"en": 1.0})
    """Weights of en and zh."""
    personas: dict[str, float] = field(default_factory=lambda: {"terse": 1.0})
    """Weights of the voices that the author has: the templates have terse and plain, a model takes any description."""
    emission: RateConfig = field(default_factory=RateConfig)
    """How fast the assistant speaks."""
    max_wait: float = 1.0
    """Seconds that an utterance may wait for the end of the one before."""
    tokenizer: str = ""
    """File that counts tokens, and by which texts are checked (`moss data tokenizer`); empty counts words."""
    cutoff: int = 0
    """Most tokens of a dialogue, frames included; 0 means any."""
    system: str = ""
    """System prompt of every dialogue."""
    author: str = "templates"
    """templates (no model) | model."""
    model: dict[str, Any] = field(default_factory=dict)
    """Endpoint, see docs/generator-backends.md."""
    author_options: dict[str, Any] = field(default_factory=dict)
    """Of the author: for templates `unasked`, for a model see docs/generator.md."""
    gates: GateConfig = field(default_factory=GateConfig)
    outputs: OutputConfig = field(default_factory=OutputConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_weights_of(self, "behaviours", "", BEHAVIOURS)
        _check_weights_of(self, "languages", "", LANGUAGES)
        _check_weights_of(self, "personas")
        if self.author not in AUTHORS:
            raise InputError(f"author is {self.author!r}; use one of {', '.join(AUTHORS)}")
        if not 0 < self.fps <= 30:
            raise InputError(f"fps is {self.fps:g}; it must lie above 0 and be at most 30")
        for name, least in (("rows_per_part", 1), ("max_frames", 2), ("cutoff", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.max_wait < math.inf:
            raise InputError(f"max_wait is {self.max_wait}; it must be 0 or more seconds")
        if self.gates.judge > 0 and self.author != "model":
            raise InputError(
                f"gates.judge is {self.gates.judge:g}, and templates cannot judge; set author=model or gates.judge=0"
            )
        if self.source.kind != "world" and not self.source.path:
            raise InputError(f"source.path is empty; give the file or folder of {self.source.kind}")
        if self.source.kind == "videos" and self.author != "model":
            raise InputError("source.kind is videos, which a model has to caption; set author=model and model.base_url")


def _check_weights_of(config: Any, name: str, path: str = "", known: tuple[str, ...] = ()) -> None:
    """Check a field of weights, and put them in order: settings that are equal draw alike, however they are written."""
    weights = getattr(config, name)
    check_weights(path + name, weights, known)
    object.__setattr__(config, name, {key: weights[key] for key in sorted(weights)})


def check_weights(name: str, weights: Mapping[str, float], known: tuple[str, ...] = ()) -> None:
    """Raises InputError unless there is a positive weight, none is negative and all names are known."""
    for key, weight in weights.items():
        if known and key not in known:
            raise InputError(f"{name}.{key} is unknown; use some of {', '.join(known)}")
        if not 0 <= weight < math.inf:
            raise InputError(f"{name}.{key} is {weight}; a weight must be 0 or more")
    if not any(weights.values()):
        raise InputError(f"{name} holds no weight above 0; give at least one")
