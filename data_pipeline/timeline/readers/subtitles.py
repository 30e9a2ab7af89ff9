"""Subtitles beside clips: what is said, known once it has been said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.formats.subtitles import SUFFIXES, VIDEO_SUFFIXES, read_subtitles
from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.row import Row
from data_pipeline.timeline.readers.videos import known_from, make_timeline
from data_pipeline.timeline.timeline import Segment, Timeline
from model.errors import InputError

_LANGUAGES = {"en": "en", "eng": "en", "zh": "zh", "zho": "zh", "chi": "zh", "cn": "zh", "cmn": "zh"}


def read_subtitle_files(path: Path, options: ReadOptions) -> Iterator[Timeline]:
    """One timeline for each video with subtitles.

    Args:
        path: a file of subtitles, a clip with one beside it, or a folder that is searched with all folders below it. `a.srt` and
            `a.en.vtt` belong to the clip `a`; of several languages the one of the options is taken, else the first by name.

    Raises:
        InputError: there are no subtitles, or some cannot be used and the options do not pass over faults.
    """
    folder = path if path.is_dir() else path.parent
    files = _files(path, options)
    used = 0
    for name, file, language in files:
        try:
            timeline = _timeline(name, file, language, folder, options)
        except InputError as error:
            options.fault(error)
            continue
        used += 1
        if options.on_video is not None:
            options.on_video(timeline.id)
        yield timeline
    if not used:
        raise InputError(f"no subtitles of {path} can be used; look at the faults")


def _timeline(name: str, file: Path, language: str, folder: Path, options: ReadOptions) -> Timeline:
    segments = [
        Segment(
            begin=cue.begin,
            end=cue.end,
            text=" ".join(cue.text.split("\n")),
            level=options.level or "speech",
            evident=known_from(cue.begin, cue.end, options, "end"),
        )
        for cue in read_subtitles(file)
    ]
    spoken = dataclasses.replace(options, language=options.language or language, split_key="")
    return make_timeline(name, Row({"video": name}, file.name), (segments, []), folder, spoken)


def _files(path: Path, options: ReadOptions) -> list[tuple[str, Path, str]]:
    """Name of the video, its subtitles, their language ('' where the name says none)."""
    if path.is_dir():
        candidates = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        folder = path
    elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        beside = sorted(p for p in path.parent.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        candidates = [p for p in beside if _video_of(p)[0] == path.stem]
        folder = path.parent
    elif path.is_file():
        candidates, folder = [path], path.parent
    else:
        raise InputError(f"{path} does not exist")
    chosen: dict[str, tuple[str, Path, str]] = {}
    for file in candidates:
        stem, language = _video_of(file)
        if options.language and language not in ("", options.language):
            continue
        name = file.relative_to(folder).with_name(stem).as_posix()
        if name not in chosen or (options.language and language == options.language and chosen[name][2] == ""):
            chosen[name] = (name, file, language)
    if not chosen:
        wanted = f" of language {options.language}" if options.language else ""
        raise InputError(f"{path} holds no subtitles{wanted}; they must be {' or '.join(SUFFIXES)} files named after their clips")
    return list(chosen.values())


def _video_of(file: Path) -> tuple[str, str]:
    """Stem of the clip and language: `a.en.srt` -> a, en; a suffix that is no language belongs to the clip."""
    stem, _, last = file.stem.rpartition(".")
    language = _LANGUAGES.get(last.lower().replace("_", "-").split("-")[0], "") if stem else ""
    return (stem, language) if language else (file.stem, "")
