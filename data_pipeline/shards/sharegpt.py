"""Importing share-GPT JSON: pretraining, offline and real-time dialogues in the reference's format."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.media.sampling import VideoInfo, indices_at
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards.annotations import Annotation
from data_pipeline.shards.media_entries import MediaEntry, media_entries
from data_pipeline.shards.media_info import fill_info
from data_pipeline.shards.schema import check_sample
from data_pipeline.text.tokenizer import IMAGE, VIDEO
from model.errors import InputError

_DEFAULT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}
_PLAIN_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


@dataclass
class Layout:
    """Where the fields of a row are."""

    columns: dict[str, str]
    tags: dict[str, str]


@dataclass
class ImportReport:
    """What became of the rows."""

    rows: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the first rows that it struck, with details."""
    missing_media: list[str] = field(default_factory=list)

    def drop(self, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < 20:
            shown.append(detail)

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "missing_media": self.missing_media,
            "examples": self.examples,
        }


class RowError(Exception):
    """A row is dropped: a short reason that rows share, and the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def import_sharegpt(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    media_root: str | os.PathLike[str] | None = None,
    template: str = "mllama",
    license: str = "",
    keep_missing: bool = False,
) -> tuple[list[Annotation], ImportReport]:
    """Read a JSON file of rows, or the entry `name` of a registry (`dataset_info.json`).

    Args:
        media_root: folder of relative media paths; the JSON file's own by default.
        template: how the samples are to be trained, mllama or mllama_pretrain.
        keep_missing: keep rows whose media files are not there.

    Raises:
        InputError: the file is missing or not of this format, or no row is left.
    """
    path, layout, label = _locate(Path(source), name)
    rows = _read_json(path)
    if not isinstance(rows, list):
        raise InputError(f"{path} must hold a JSON list of rows; for a registry name an entry with --name")
    reader = _RowReader(label, layout, Path(media_root) if media_root else path.parent, template, license, keep_missing)
    report = ImportReport(rows=len(rows))
    kept = []
    for index, row in enumerate(rows):
        try:
            kept.append(reader.read(row, index))
        except RowError as error:
            report.drop(error.reason, f"row {index}: {error}")
    report.kept = len(kept)
    report.missing_media = sorted(reader.missing)
    if not kept:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in report.dropped.most_common()) or "the file is empty"
        first = next((e[0] for e in report.examples.values()), "")
        raise InputError(f"no row of {path} can be used: {reasons}; {first or 'give a list with rows'}")
    return kept, report


class _RowReader:
    """Turns rows into annotations; files are looked at once."""

    def __init__(self, label: str, layout: Layout, media_root: Path, template: str, license: str, keep_missing: bool) -> None:
        self.label = label
        self.layout = layout
        self.media_root = media_root
        self.template = template
        self.license = license
        self.keep_missing = keep_missing
        self.missing: set[str] = set()
        self._known: dict[Path, Media | str] = {}

    def read(self, row: Any, index: int) -> Annotation:
        """Raises RowError where the row must be dropped."""
        if not isinstance(row, Mapping):
            raise RowError("not an object", f"is {type(row).__name__}")
        messages = self._messages(row)
        entries = self._entries(row)
        media, files = [], {}
        for number, entry in enumerate(entries):
            item, path = self._media(entry, number)
            media.append(item)
            files[item.file] = path
        realtime = any(e.markers != "one" for e in entries)
        videos = any(e.type == "video" for e in entries)
        sample = Sample(
            kind="realtime" if realtime else "video" if videos else "image" if entries else "text",
            messages=messages,
            media=media,
            template=self.template,
            dataset=self.label,
            source=self.label,
            license=self.license,
        )
        try:
            check_sample(sample)
        except InputError as error:
            raise RowError("markers and media, or roles, do not match", str(error)) from None
        return Annotation(f"{re.sub(r'[^A-Za-z0-9_-]', '_', self.label)}-{index:06d}", sample, files)

    def _messages(self, row: Mapping[str, Any]) -> list[Message]:
        tags = self.layout.tags
        roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant", tags["system_tag"]: "system"}
        turns = row.get(self.layout.columns["messages"])
        if not isinstance(turns, list) or not turns:
            raise RowError("no messages", f"column {self.layout.columns['messages']} is {turns!r:.60}")
        messages = []
        for turn in turns:
            role = roles.get(str(turn.get(tags["role_tag"]))) if isinstance(turn, Mapping) else None
            content = turn.get(tags["content_tag"]) if isinstance(turn, Mapping) else None
            if role is None or not isinstance(content, str):
                raise RowError("message without a known role and text", f"message {turn!r:.80}")
            messages.append(Message(role=role, content=content.replace("<image>", IMAGE).replace("<video>", VIDEO)))
        system = row.get(self.layout.columns.get("system", "system"))
        if isinstance(system, str) and system and messages[0].role != "system":
            messages.insert(0, Message(role="system", content=system))
        return messages

    def _entries(self, row: Mapping[str, Any]) -> list[MediaEntry]:
        entries = []
        for kind, default in (("image", "images"), ("video", "videos")):
            values = row.get(self.layout.columns.get(default, default)) or []
            try:
                entries += media_entries(values, kind)
            except InputError as error:
                raise RowError("media column cannot be read", str(error)) from None
        return entries

    def _media(self, entry: MediaEntry, number: int) -> tuple[Media, Path]:
        path = self._find(entry.path)
        suffix = path.suffix.lower().lstrip(".") or ("jpg" if entry.type == "image" else "mp4")
        media = Media(
            type=entry.type,
            file=f"{number}.{suffix}",
            markers=entry.markers,
            frame_times=entry.times,
        )
        if entry.markers != "one":
            media.fps, media.min_frames = 1.0, 1  # this format's clock: one frame a second, however short the clip
        if not path.is_file():
            self.missing.add(entry.path)
            if not self.keep_missing:
                raise RowError("media file is missing", f"{path} does not exist")
            return media, path
        self._fill(media, path)
        return media, path

    def _find(self, name: str) -> Path:
        """Relative paths count from the media folder, from the folder around it, or from where the command runs."""
        places = [self.media_root / name, self.media_root.parent / name, Path(name)]
        return next((p for p in places if p.is_file()), places[0])

    def _fill(self, media: Media, path: Path) -> None:
        if path not in self._known:
            probe = Media(type=media.type, file=media.file)
            try:
                fill_info(probe, path, str(path))
                self._known[path] = probe
            except (InputError, OSError) as error:
                self._known[path] = str(error)
        known = self._known[path]
        if isinstance(known, str):
            raise RowError("media file cannot be decoded", known)
        media.width, media.height = known.width, known.height
        media.rate, media.duration, media.num_frames = known.rate, known.duration, known.num_frames
        if media.markers == "per_frame" and known.rate and known.duration and known.num_frames:
            info = VideoInfo(width=0, height=0, fps=known.rate, duration=known.duration, num_frames=known.num_frames)
            try:
                indices_at(info, media.frame_times or [], str(path))
            except InputError as error:
                raise RowError("a marker's time is behind the end of the video", str(error)) from None


def _locate(source: Path, name: str | None) -> tuple[Path, Layout, str]:
    """The file of rows, its layout and a label."""
    if name is None:
        rows = _read_json(source)
        first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], Mapping) else {}
        column = "conversations" if "conversations" in first else "messages"
        turns = first.get(column) or [{}]
        plain = not (isinstance(turns, list) and isinstance(turns[0], Mapping) and "from" in turns[0])
        return source, Layout({"messages": column}, _PLAIN_TAGS if plain else _DEFAULT_TAGS), source.stem
    registry = _read_json(source)
    entry = registry.get(name) if isinstance(registry, Mapping) else None
    if not isinstance(entry, Mapping):
        names = ", ".join(sorted(registry)[:20]) if isinstance(registry, Mapping) else "none"
        raise InputError(f"{source} has no entry {name!r}; it has {names}")
    if "file_name" not in entry:
        raise InputError(f"{source} entry {name} names no local file (file_name); only local data can be imported")
    if entry.get("formatting") != "sharegpt":
        raise InputError(f"{source} entry {name} has formatting {entry.get('formatting')!r}; only sharegpt can be imported")
    columns = {"messages": "conversations", **entry.get("columns", {})}
    return source.parent / entry["file_name"], Layout(columns, {**_DEFAULT_TAGS, **entry.get("tags", {})}), name


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
