"""LiveSports-3K-CC: events with what a human commentator said, and the captions of the model to be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.schema import PromptEvent, Scenario, Span
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, seconds_of, take
from inference.evaluation.suites.livesports_cc.prompts import TEMPLATES
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError


def load(path: Path, options: ImportOptions) -> Imported:
    """One streamed scenario for each event.

    Args:
        path: folder of two files, JSON or JSON lines: the events (with `event_asr_text`), and captions of one model (with
            `pred`), such as GPT-4o.jsonl; its name is that of the model.

    Raises:
        InputError: another number of files, a file that is not of the release, an event without a caption, no video at all.
    """
    events, captions = _files(path)
    templates, videos = load_templates(TEMPLATES, options.prompts), Videos(options.videos)
    other = {_key(entry, f"{captions} entry {i}"): take(entry, "pred", str, f"{captions} entry {i}")
             for i, entry in enumerate(read_list(captions))}  # fmt: skip
    scenarios: list[Scenario] = []
    notes = []
    for number, entry in enumerate(read_list(events)[: options.limit]):
        where = f"{events} entry {number}"
        key = _key(entry, where)
        if key not in other:
            raise InputError(f"{where}: {captions} has no caption of event {key}; give captions of all events")
        name = entry["video"] if isinstance(entry.get("video"), str) else take(entry, "video_id", str, where)
        video = videos.find(name)
        if video is None:
            continue
        begin, end = (seconds_of(entry.get(field), where) for field in ("begin", "end"))
        frames = videos.frames(video, options.fps, begin=begin, until=end)
        if frames < 1 or end <= begin:
            notes.append(f"{where} is left out: it lies behind the end of its video")
            continue
        truth = take(entry, "event_asr_text", str, where)
        scenarios.append(
            Scenario(
                id=key,
                suite="livesports_cc",
                fps=options.fps,
                num_frames=frames,
                video=video,
                begin=begin,
                prompts=[PromptEvent(t=0.0, text=_request(entry, templates))],
                spans=[Span(a=0.0, b=end - begin, text=truth, kind="narration", prompt=0)],
                source="LiveSports-3K-CC",
                meta={"other": other[key], "other_name": captions.stem},
            )
        )
    manifest = make_manifest(
        "livesports_cc",
        options,
        [events, captions],
        templates,
        scenarios,
        videos,
        license="see the page of the data set",
        source="https://huggingface.co/datasets/stdKonjac/LiveSports-3K",
        notes=notes,
    )
    return Imported(scenarios, manifest)


def _files(path: Path) -> tuple[Path, Path]:
    events, captions = [], []
    for file in sorted(path.glob("*.json*")) if path.is_dir() else []:
        if not file.name.endswith((".json", ".jsonl")) or file.name.endswith(".manifest.json"):
            continue
        first = read_list(file)[0]
        if isinstance(first, dict) and "event_asr_text" in first:
            events.append(file)
        elif isinstance(first, dict) and "pred" in first:
            captions.append(file)
    if len(events) != 1 or len(captions) != 1:
        raise InputError(
            f"{path} has {len(events)} files of events (with event_asr_text) and {len(captions)} of captions (with pred); give a "
            "folder with one of each"
        )
    return events[0], captions[0]


def _key(entry: Any, where: str) -> str:
    return f"{take(entry, 'video_id', str, where)}_{take(entry, 'event_id', (int, str), where)}"


def _request(entry: Mapping[str, Any], templates: Mapping[str, str]) -> str:
    title, before = entry.get("event_title") or "", entry.get("preasr_text") or ""
    return templates["request"].format(
        title=templates["title"].format(title=title) if title else "",
        before=templates["before"].format(before=before) if before else "",
    )
