"""Ego4D narration streams as the repository prepares them: `narration_stream_SPLIT.json` or its refined sibling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.schema import PromptEvent, Scenario, Span
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_json, seconds_of, take
from inference.evaluation.suites.suite import Imported, ImportOptions
from inference.evaluation.suites.videollm_online.prompts import TEMPLATES
from model.errors import InputError

_SLACK = 1e-6


def load(path: Path, options: ImportOptions) -> Imported:
    """One scenario for each annotator of each video.

    Args:
        path: `{video: {annotation: [{"time": seconds, "text": …}, …]}}`. Videos are called by their uid.

    Raises:
        InputError: the file is of another form, or no video was found.
    """
    content = read_json(path)
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"{path} holds no narrations by video; give narration_stream_val.json, which the repository's code writes"
        )
    templates, videos = load_templates(TEMPLATES, options.prompts), Videos(options.videos)
    scenarios: list[Scenario] = []
    notes = ["There the speaker's name, its colon and a closing token count as tokens of a text, too; here they do not exist."]
    for uid, by_annotation in list(content.items())[: options.limit]:
        where = f"{path} video {uid}"
        if not isinstance(by_annotation, Mapping):
            raise InputError(f"{where} is {str(by_annotation)[:60]!r}; it must be an object of annotations")
        video = videos.find(uid)
        if video is None:
            continue
        for annotation, narrations in by_annotation.items():
            said = _narrations(narrations, f"{where} annotation {annotation}", options.fps, videos.frames(video, options.fps))
            if said:
                scenarios.append(_scenario(f"{uid}_{annotation}", video, said, templates["instruction"], options))
            else:
                notes.append(f"{where} annotation {annotation} is left out: nothing is said while the video lasts")
    manifest = make_manifest(
        "videollm_online",
        options,
        [path],
        templates,
        scenarios,
        videos,
        license="of Ego4D: see ego4d-data.org",
        source="https://github.com/showlab/videollm-online",
        notes=notes,
    )
    return Imported(scenarios, manifest)


def _narrations(narrations: Any, where: str, fps: float, frames: int) -> dict[int, str]:
    """Text by frame: times are rounded up to a frame, the same text twice in a row is one, the later of two at a frame counts."""
    if not isinstance(narrations, list):
        raise InputError(f"{where} is {str(narrations)[:60]!r}; it must be a list of narrations")
    found: dict[int, str] = {}
    before = None
    for number, entry in enumerate(narrations):
        text = take(entry, "text", str, f"{where} entry {number}").strip()
        frame = min(math.ceil(seconds_of(entry.get("time"), f"{where} entry {number}") * fps - _SLACK), frames - 1)
        if found and max(found) >= frames - 1:
            break
        if text and text != before:
            found[frame] = text
            before = text
    return found


def _scenario(name: str, video: str, said: Mapping[int, str], instruction: str, options: ImportOptions) -> Scenario:
    first, last = min(said), max(said)
    if options.max_frames is not None:
        last = max(frame for frame in said if frame < first + options.max_frames)
    spans = [
        # Nobody can know when the first is due: its words count, its time does not.
        Span(
            a=(n - first) / options.fps,
            b=(n - first) / options.fps,
            text=said[n],
            kind="narration",
            meta={"timed": False} if n == first else {},
        )
        for n in sorted(said)
        if n <= last
    ]
    return Scenario(
        id=name,
        suite="videollm_online",
        fps=options.fps,
        num_frames=last - first + 1,
        video=video,
        begin=first / options.fps,
        prompts=[PromptEvent(t=0.0, text=instruction)],
        spans=spans,
        source="Ego4D",
    )
