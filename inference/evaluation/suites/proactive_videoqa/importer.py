"""ProactiveVideoQA's released annotations: `TASK/anno.json` for each of WEB, EGO, TV and VAD, videos in `TASK/videos`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.schema import PromptEvent, Scenario, Span
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, take
from inference.evaluation.suites.proactive_videoqa.prompts import TEMPLATES
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError

TASKS = ("WEB", "EGO", "TV", "VAD")


def load(path: Path, options: ImportOptions) -> Imported:
    """One streamed scenario for each question; the stream ends with the last span in which something is worth saying.

    Args:
        path: the release's folder, or one anno.json; the task is the name of its folder.

    Raises:
        InputError: a file that is not of the release, no video at all.
    """
    files = [path] if path.is_file() else [path / task / "anno.json" for task in TASKS if (path / task / "anno.json").is_file()]
    if not files:
        raise InputError(f"{path} has no anno.json below {', '.join(TASKS)}; give the release's folder")
    templates, videos = load_templates(TEMPLATES, options.prompts), Videos(options.videos)
    entries = [
        (f"{file} entry {number}", file.parent.name, entry) for file in files for number, entry in enumerate(read_list(file))
    ]
    scenarios: list[Scenario] = []
    notes: list[str] = []
    for where, task, entry in entries[: options.limit]:
        name = take(entry, "video", str, where)
        video = videos.look(f"{task}/videos/{name}", 2) or videos.find(name)
        if video is None:
            continue
        scenario = _scenario(where, task, entry, video, videos, options, templates, notes)
        if scenario is not None:
            scenarios.append(scenario)
    manifest = make_manifest(
        "proactive_videoqa",
        options,
        files,
        templates,
        scenarios,
        videos,
        license="see the page of the data set",
        source="arXiv 2507.09313",
        notes=notes,
    )
    return Imported(scenarios, manifest)


def _scenario(
    where: str,
    task: str,
    entry: Mapping[str, Any],
    video: str,
    videos: Videos,
    options: ImportOptions,
    templates: Mapping[str, str],
    notes: list[str],
) -> Scenario | None:
    turns = take(entry, "conversation", list, where)
    if not turns:
        raise InputError(f"{where}: conversation is empty; its first turn is the question")
    prompts = []
    for place, turn in enumerate(turns):
        text = take(turn, "content", str, where)
        said = templates["turn"].format(text=text) if place else templates["question"].format(question=text)
        prompts.append(PromptEvent(t=_seconds(turn, "time", where) if "time" in turn else 0.0, text=said))
    spans = [_span(answer, where) for answer in take(entry, "answer", list, where)]
    if not spans:
        raise InputError(f"{where}: answer is empty; leave the entry out")
    frames = videos.frames(video, options.fps, until=max(span.b for span in spans))
    last = (frames - 1) / options.fps
    within = [span for span in spans if span.a <= last]
    if len(within) < len(spans):
        notes.append(f"{where}: {len(spans) - len(within)} of {len(spans)} answers lie behind the end of the video")
    if not within:
        return None
    identity = take(entry, "question_id", (str, int), where)
    return Scenario(
        id=f"{task}/{identity}",
        suite="proactive_videoqa",
        fps=options.fps,
        num_frames=frames,
        video=video,
        prompts=prompts,
        spans=within,
        source="ProactiveVideoQA",
        meta={"task": task, "question": take(turns[0], "content", str, where)},
    )


def _span(answer: Any, where: str) -> Span:
    begin, end = _pair(answer, "reply_timespan", where)
    related = _pair(answer, "related_timespan", where)[1] if "related_timespan" in answer else end
    return Span(a=begin, b=end, text=take(answer, "content", str, where), kind="answer", prompt=0, meta={"related_end": related})


def _pair(answer: Any, name: str, where: str) -> tuple[float, float]:
    values = take(answer, name, list, where)
    if len(values) != 2:
        raise InputError(f"{where}: {name} is {values}; it must be a beginning and an end")
    begin, end = (_seconds({name: value}, name, where) for value in values)
    if begin > end:
        raise InputError(f"{where}: {name} is {values}; its end must not lie before its beginning")
    return begin, end


def _seconds(entry: Any, name: str, where: str) -> float:
    t = take(entry, name, float, where)
    if t < 0:
        raise InputError(f"{where}: {name} is {t}; it must be 0 or more")
    return t
