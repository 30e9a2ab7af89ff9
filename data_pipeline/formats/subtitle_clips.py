"""Clips with subtitles beside them as streaming captions: the frames up to a cue's end, then its text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipeline.formats.importing import CLOCK, ImportOptions, make_annotation, row_key
from data_pipeline.formats.media_entries import MediaEntry
from data_pipeline.formats.media_files import MediaFiles
from data_pipeline.formats.parsed import ParsedRow
from data_pipeline.formats.report import ImportReport, RowError
from data_pipeline.formats.source import OnProgress
from data_pipeline.formats.subtitles import SUFFIXES, VIDEO_SUFFIXES, Cue, read_subtitles
from data_pipeline.media.sampling import SLACK, clock_frames
from data_pipeline.schema import Message
from data_pipeline.shards.annotations import Annotation
from data_pipeline.shards.media_info import video_info
from data_pipeline.text.tokenizer import SILENCE, VIDEO
from model.errors import InputError

_OVERHANG = 1.0
"""Seconds that a cue may stay after the last frame, as many do."""

Pair = tuple[Path, Path, str]
"""Clip, subtitles, language ('' where the name says none)."""


def import_subtitles(
    source: str | os.PathLike[str],
    options: ImportOptions,
    report: ImportReport,
    language: str | None = None,
    on_progress: OnProgress | None = None,
) -> Iterator[Annotation]:
    """One sample for each clip and language.

    Args:
        source: a clip, or a folder that is searched with all folders below it. Subtitles have the clip's name, with or without a
            language: `a.srt`, `a.en.vtt`.
        language: take only subtitles of this language.

    Raises:
        InputError: there is no clip, or none can be used.
    """
    place = Path(source)
    clips, folder = _clips(place)
    pairs = [pair for clip in clips for pair in _pairs(clip, language, report)]
    files = MediaFiles([], options.workers)
    label = place.name if place.is_dir() else place.stem
    for number, (clip, subtitles, spoken) in enumerate(pairs):
        report.rows += 1
        if number % options.workers == 0:
            files.look_up((str(c), "video") for c, _, _ in pairs[number : number + options.workers])
        try:
            row = caption_row(str(clip), read_subtitles(subtitles), files, spoken)
            yield make_annotation(row, row_key(label, number), label, files, options, report)
            report.kept += 1
        except InputError as error:
            report.drop(RowError("subtitles cannot be read", str(error)), str(subtitles.relative_to(folder)))
        except RowError as error:
            report.drop(error, str(subtitles.relative_to(folder)))
        if on_progress is not None:
            on_progress(number + 1, len(pairs))
    if not report.kept:
        raise InputError(f"no clip of {place} can be used: {report.why_none()}")


def caption_row(clip: str, cues: Sequence[Cue], files: MediaFiles, language: str = "") -> ParsedRow:
    """The sample of one clip.

    Raises:
        RowError: the clip cannot be read, or a cue is behind its end.
    """
    found = files.get(clip, "video")
    if found.media is None:
        raise RowError("media file cannot be decoded", found.fault)
    info = video_info(found.media, clip)
    ends, texts = caption_events(cues, clock_frames(info, CLOCK, clip)[1], info.duration, clip)
    said = "".join(f"{VIDEO}{text}{SILENCE}" for text in texts)
    messages = [Message(role="user", content=""), Message(role="assistant", content=said)]
    meta = {"language": language, "cues": [list(cue) for cue in cues]}
    return ParsedRow(messages, [MediaEntry(clip, "video", "per_event", ends)], meta=meta)


def caption_events(
    cues: Sequence[Cue], times: Sequence[float], duration: float, name: str = "clip"
) -> tuple[list[float], list[str]]:
    """Ends and texts of a clip's events; a text of '' stands for the frames behind the last cue.

    A cue during which no new frame comes is said together with the one before it.

    Args:
        times: seconds of the sampled frames.
        duration: seconds of the clip.

    Raises:
        RowError: a cue is behind the end of the clip.
    """
    ends: list[float] = []
    texts: list[str] = []
    shown = 0
    for cue in sorted(cues, key=lambda c: (c.end, c.begin)):
        if cue.begin >= duration or cue.end > duration + _OVERHANG:
            detail = f"{name} lasts {duration:g} s, a cue is from {cue.begin:g} to {cue.end:g} s"
            raise RowError("a cue is behind the end of the video", detail)
        line, end = " ".join(cue.text.split("\n")), min(cue.end, duration)
        seen = sum(t <= end + SLACK for t in times)
        if ends and seen <= shown:
            texts[-1], ends[-1] = f"{texts[-1]} {line}", end
        else:
            ends.append(end)
            texts.append(line)
            shown = seen
    if shown < len(times):
        ends.append(duration)
        texts.append("")
    return ends, texts


def _clips(place: Path) -> tuple[list[Path], Path]:
    """Clips in order of their paths, and the folder that names are told from."""
    if place.is_dir():
        clips = sorted(p for p in place.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        if not clips:
            raise InputError(f"{place} holds no clip ({', '.join(VIDEO_SUFFIXES)})")
        return clips, place
    if not place.is_file():
        raise InputError(f"{place} does not exist")
    return [place], place.parent


def _pairs(clip: Path, language: str | None, report: ImportReport) -> list[Pair]:
    """Subtitles of one clip: one file for each language, SRT before WebVTT."""
    chosen: dict[str, Path] = {}
    for path in sorted(clip.parent.iterdir()):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if path.stem != clip.stem and not path.stem.startswith(f"{clip.stem}."):
            continue
        spoken = path.stem[len(clip.stem) + 1 :]
        if language is not None and spoken.split(".")[0].lower() != language.lower():
            continue
        if chosen.setdefault(spoken, path) != path:
            report.drop(RowError("a second file of the same language", f"{path.name} beside {chosen[spoken].name}"), clip.name)
    if not chosen:
        wanted = f" of language {language}" if language is not None else ""
        report.drop(RowError("clip without subtitles", f"no {clip.stem}.srt or .vtt{wanted} is beside it"), clip.name)
    return [(clip, path, spoken) for spoken, path in sorted(chosen.items())]
