"""From parsed rows to annotations: media looked up, samples checked, what cannot be used counted."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.formats.media_entries import MediaEntry
from data_pipeline.formats.media_files import MediaFiles
from data_pipeline.formats.parsed import ParsedRow, RowFormat
from data_pipeline.formats.report import ImportReport, RowError
from data_pipeline.media.sampling import clock_frames, event_counts, indices_at
from data_pipeline.schema import Media, Sample
from data_pipeline.shards.annotations import Annotation
from data_pipeline.shards.media_info import video_info
from data_pipeline.shards.schema import check_sample
from data_pipeline.text.template import check_template, split_messages
from model.errors import InputError

CLOCK = 1.0
"""Frames a second of a timed dialogue in the reference's format, however short the clip."""
WINDOW = 256
"""Rows whose media are looked up together."""

OnRow = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What holds for every row of an import."""

    media_root: Path | None = None
    """Folder of relative media paths; None takes the folder of the rows, or of the registry."""
    template: str = "mllama"
    """mllama | mllama_pretrain: how the samples are to be trained."""
    license: str = ""
    keep_missing: bool = False
    """Keep rows whose media files are not there."""
    workers: int = 4
    """Media files opened at a time."""

    def __post_init__(self) -> None:
        check_template(self.template)
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}; it must be at least 1")

    def media_files(self, beside: Path) -> MediaFiles:
        """Relative paths count from the media folder, from the folder around it, or from where the command runs."""
        root = self.media_root or beside
        return MediaFiles([root, root.parent], self.workers)


def import_rows(
    rows: Iterable[Any],
    row_format: RowFormat,
    label: str,
    files: MediaFiles,
    options: ImportOptions,
    report: ImportReport,
    on_row: OnRow | None = None,
) -> Iterator[Annotation]:
    """Samples of all usable rows, in order; holds `WINDOW` rows at a time.

    Args:
        label: dataset name; keys are `label-000000` and so on, by row.
        report: filled in on the way.
        on_row: called with the number of rows read so far.

    Raises:
        InputError: no row can be used.
    """
    numbered = enumerate(rows)
    while window := list(itertools.islice(numbered, WINDOW)):
        parsed = [(index, _parse(row, row_format)) for index, row in window]
        files.look_up((e.path, e.type) for _, item in parsed if isinstance(item, ParsedRow) for e in item.entries)
        for index, item in parsed:
            report.rows += 1
            try:
                if isinstance(item, RowError):
                    raise item
                annotation = make_annotation(item, row_key(label, index), label, files, options, report)
            except RowError as error:
                report.drop(error, f"row {index}")
                continue
            report.kept += 1
            yield annotation
        if on_row is not None:
            on_row(report.rows)
    if not report.kept:
        raise InputError(f"no row of {label} can be used: {report.why_none()}")


def make_annotation(
    row: ParsedRow, key: str, label: str, files: MediaFiles, options: ImportOptions, report: ImportReport
) -> Annotation:
    """One sample with its media described.

    Raises:
        RowError: a file is missing or unreadable, or the row contradicts itself.
    """
    _check_text(row)
    described = [_describe(entry, number, files, options, report) for number, entry in enumerate(row.entries)]
    realtime = any(e.markers != "one" for e in row.entries)
    videos = any(e.type == "video" for e in row.entries)
    sample = Sample(
        kind="realtime" if realtime else "video" if videos else "image" if row.entries else "text",
        messages=row.messages,
        media=[media for media, _ in described],
        template=row.template or options.template,
        dataset=label,
        source=label,
        license=options.license,
        meta=row.meta,
    )
    _check(sample)
    return Annotation(key, sample, {media.file: path for media, path in described})


def _parse(row: Any, row_format: RowFormat) -> ParsedRow | RowError:
    if isinstance(row, RowError):
        return row
    if not isinstance(row, Mapping):
        return RowError("row is not an object", f"it is {type(row).__name__}")
    try:
        return row_format.parse(row)
    except RowError as error:
        return error


def _describe(
    entry: MediaEntry, number: int, files: MediaFiles, options: ImportOptions, report: ImportReport
) -> tuple[Media, Path]:
    found = files.get(entry.path, entry.type)
    if found.fault and not found.missing:
        raise RowError("media file cannot be decoded", found.fault)
    suffix = found.path.suffix.lower().lstrip(".") or ("jpg" if entry.type == "image" else "mp4")
    media = Media(type=entry.type, file=f"{number}.{suffix}", markers=entry.markers, frame_times=entry.times)
    if entry.markers != "one":
        media.fps, media.min_frames = CLOCK, 1
    if found.media is None:
        report.missing_media.add(entry.path)
        if not options.keep_missing:
            raise RowError("media file is missing", found.fault)
        return media, found.path
    known = found.media
    media.width, media.height = known.width, known.height
    media.rate, media.duration, media.num_frames = known.rate, known.duration, known.num_frames
    _check_times(media, entry.path)
    return media, found.path


def _check_times(media: Media, name: str) -> None:
    """Every marker of a timed dialogue must have a frame."""
    if media.markers == "one" or not (media.rate and media.duration and media.num_frames):
        return
    info = video_info(media, name)
    times = media.frame_times or []
    try:
        if media.markers == "per_frame":
            indices_at(info, times, name)
        else:
            event_counts(clock_frames(info, CLOCK, name)[1], times, name)
    except InputError as error:
        reason = "a marker's time is behind the end of the video" if media.markers == "per_frame" else "an event has no frame"
        raise RowError(reason, str(error)) from None


def _check_text(row: ParsedRow) -> None:
    """JSON may hold half a surrogate pair, which no file can."""
    for text in (*(m.content for m in row.messages), *(e.path for e in row.entries)):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError("text is not valid Unicode", f"{error}") from None


def _check(sample: Sample) -> None:
    try:
        split_messages(sample.messages)
    except InputError as error:
        raise RowError("roles do not alternate", str(error)) from None
    try:
        check_sample(sample)
    except InputError as error:
        raise RowError("markers and media do not match", str(error)) from None


def row_key(label: str, index: int) -> str:
    """Key of a dataset's row, as shards want it."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', label)[:64]}-{index:06d}"
