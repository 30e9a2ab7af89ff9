"""How many calls a model would get for the videos of a source, and what they would cost: counted, not asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.generator.build.sources import windows
from data_pipeline.generator.build.timelines import left_out_by, read_videos, video_files
from data_pipeline.timeline.timeline import Timeline

LETTERS_PER_TOKEN = 3.5
LETTERS_PER_SEGMENT = 60
"""Of a line about a segment in a prompt, where the text is not known yet."""
ANSWER_TOKENS = {"caption": 500, "normalise": 1200, "changes": 500, "plan": 150, "answer": 60, "style": 250, "judge": 80}
"""About what an answer of each role has."""
SECONDS_PER_CALL = 4.0
"""From a question to its answer; with `concurrency` of them at a time."""
SEGMENTS_PER_SECOND = 0.25
"""That a model sees in a video without annotations."""
DECISIONS = 8
"""Frames of a dialogue at which a model has to decide, at most one for each thing that happens."""


@dataclass
class Planned:
    """Sums over all videos."""

    videos: int = 0
    rows: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0

    def ask(self, role: str, calls: int, letters: float, images: float = 0.0, image_tokens: int = 0) -> None:
        """Enter calls of a role whose prompts have so many letters and images each."""
        self.calls[role] = self.calls.get(role, 0) + calls
        self.input_tokens += round(calls * (letters / LETTERS_PER_TOKEN + images * image_tokens))
        self.output_tokens += calls * ANSWER_TOKENS[role]


def planned_calls(config: BuildConfig, path: Path) -> dict[str, Any]:
    """Names and values to print: videos, dialogues tried and, with a model, calls, tokens, dollars and hours.

    Dollars need `model.prices`. Nothing is sent and nothing is written.

    Raises:
        InputError: the source cannot be read.
    """
    planned = Planned()
    if config.source.kind == "videos":
        _count_videos(config, path, planned)
    else:
        faults: list[str] = []
        left_out = left_out_by(config)
        for timeline in read_videos(config, faults):
            if left_out(timeline) is None:
                _count_rows(config, timeline, planned)
        if faults:
            return {**_told(config, planned), "left out": f"{len(faults)} rows of the source, the first: {faults[0]}"}
    return _told(config, planned)


def _count_videos(config: BuildConfig, path: Path, planned: Planned) -> None:
    from data_pipeline.generator.backends.vision import SYSTEM, VisionOptions, frame_times
    from data_pipeline.media.decode import probe_video

    options = VisionOptions(language=config.source.language or "en")
    for file in video_files(path):
        duration = probe_video(file).duration
        frames = len(frame_times(duration, options.fps))
        calls = math.ceil(frames / options.frames_per_call)
        planned.ask("caption", calls, len(SYSTEM) + 600, frames / calls, int(config.model.get("image_tokens", 300)))
        _count_rows(config, Timeline(id=str(file), duration=duration), planned, duration * SEGMENTS_PER_SECOND)


def _count_rows(config: BuildConfig, timeline: Timeline, planned: Planned, segments: float | None = None) -> None:
    planned.videos += 1
    for clip in windows(timeline, config.fps, config.max_frames):
        rows = config.rows.per_video
        planned.rows += rows
        if config.author == "model":
            share = 1.0 if segments is None else (clip.frame_times[-1] - clip.frame_times[0]) / timeline.duration
            _count_calls(config, planned, rows, len(clip.timeline.segments) if segments is None else segments * share)


def _count_calls(config: BuildConfig, planned: Planned, rows: int, segments: float) -> None:
    """Calls for the dialogues about one clip; equal questions about it are paid once."""
    from data_pipeline.generator.models.model_author import STAGES, ModelOptions
    from data_pipeline.generator.models.normalising import NOTES_PER_CALL
    from data_pipeline.generator.models.prompt_files import prompt

    stages = tuple(config.author_options.get("stages", STAGES))
    by_rules = tuple(config.author_options.get("by_rules", ModelOptions().by_rules))
    weights = config.behaviours
    by_model = 1 - sum(weights.get(name, 0.0) for name in by_rules) / sum(weights.values())
    view = segments * LETTERS_PER_SEGMENT
    asked = math.ceil(rows * by_model)
    calls = {
        "normalise": math.ceil(segments / NOTES_PER_CALL),
        "changes": 1,
        "plan": asked,
        "answer": asked * min(DECISIONS, math.ceil(segments)),
        "style": asked,
        "judge": rows if config.gates.judge > 0 else 0,
    }
    for role, count in calls.items():
        if role in stages or role == "answer":
            planned.ask(role, count, len(prompt(role)) + view)


def _told(config: BuildConfig, planned: Planned) -> dict[str, Any]:
    told: dict[str, Any] = {"videos": planned.videos, "dialogues tried": planned.rows, "model calls": sum(planned.calls.values())}
    if not planned.calls:
        return told
    prices: Mapping[str, float] = config.model.get("prices") or {}
    dollars = (planned.input_tokens * prices.get("input", 0) + planned.output_tokens * prices.get("output", 0)) / 1e6
    concurrency = max(1, int(config.model.get("concurrency", 8)))
    calls, tokens = sum(planned.calls.values()), planned.input_tokens + planned.output_tokens
    limits = {"requests_per_minute": calls, "tokens_per_minute": tokens}
    slowest = [asked / float(config.model[name]) / 60 for name, asked in limits.items() if config.model.get(name)]
    hours = max(calls * SECONDS_PER_CALL / concurrency / 3600, *slowest, 0.0)
    return {
        **told,
        "calls by role": ", ".join(f"{role} {count}" for role, count in planned.calls.items() if count),
        "input tokens": f"about {planned.input_tokens:,}",
        "output tokens": f"about {planned.output_tokens:,}",
        "dollars": f"about {dollars:.2f}" if prices else "unknown; give model.prices.input and model.prices.output",
        "hours": f"about {hours:.2f} at {concurrency} calls at a time",
    }
