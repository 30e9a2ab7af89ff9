"""What all formats share about a video: its file, duration, licence and split, and the timeline made of its segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_pipeline.formats.subtitles import VIDEO_SUFFIXES
from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.row import Row
from data_pipeline.timeline.readers.sources import FILE, video_rows
from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline, check_timeline
from model.errors import InputError

DURATION = ("duration", "duration_sec", "video_duration", "duration_second", "seconds", "length", "video_length")
_LANGUAGES = {"en": "en", "eng": "en", "english": "en", "zh": "zh", "cn": "zh", "chi": "zh", "zho": "zh", "chinese": "zh"}
_OVERHANG = 1.0
"""Seconds by which an annotation may outlast its video, as rounded ones do; it is cut off there."""

Parts = tuple[list[Segment], list[GivenQuestion]]
Parse = Callable[[Row], Parts]


def read_videos(
    path: Path, options: ReadOptions, parts: tuple[str, ...], parse: Parse, is_wanted: Callable[[Row], bool] = lambda row: True
) -> Iterator[Timeline]:
    """One timeline for each video of which anything can be used.

    Args:
        parts: fields of which a video's object holds one.
        parse: segments and questions of a video's object.
        is_wanted: whether an object is a video at all; others are passed over without a word.

    Raises:
        InputError: a row cannot be used and the options do not pass over faults, or no row can.
    """
    seen: set[str] = set()
    for name, row in video_rows(path, options, parts):
        if not is_wanted(row):
            continue
        try:
            if not name:
                raise row.lacks(("video", "id"))
            if name in seen:
                raise InputError(f"{row.where} is a second row of video {name!r}; put all of its annotations into one row")
            before = options.faults["rows"]
            found = parse(row)
            if not any(found) and options.faults["rows"] > before:
                continue  # each of its items has said what is wrong
            timeline = make_timeline(name, row, found, path, options)
            seen.add(name)
        except InputError as error:
            options.fault(error)
            continue
        if options.on_video is not None:
            options.on_video(timeline.id)
        yield timeline
    if not seen:
        raise InputError(f"{path} holds no video that can be used; look at the faults, or choose another kind of source")


def make_timeline(name: str, row: Row, parts: Parts, path: Path, options: ReadOptions) -> Timeline:
    """The timeline of one video.

    Raises:
        InputError: the duration is not known, or nothing lies within it.
    """
    segments, questions = parts
    if not segments and not questions:
        raise InputError(f"{row.where} has no segment and no question; leave the video out")
    folder = options.media_root or (path if path.is_dir() else path.parent)
    file = find_video(name, row.text(FILE), folder)
    ends = [s.begin if s.end is None else s.end for s in segments] + [q.evidence[1] for q in questions if q.evidence]
    duration = _duration(row, file, max(ends, default=0.0), options)
    fitting = [_fit(s, duration, row) for s in sorted(segments, key=lambda s: s.begin)]
    evident = [_fit_question(q, duration, row) for q in questions]
    source = options.source or row.text(("source", "dataset")) or (path.name if path.is_dir() else path.stem)
    timeline = Timeline(
        id=Path(name).stem if name.lower().endswith(VIDEO_SUFFIXES) else name,
        duration=duration,
        segments=tuple(dataclasses.replace(s, source=s.source or source) for s in fitting),
        questions=tuple(evident),
        video=str(file) if file is not None else row.text(FILE),
        language=options.language or _LANGUAGES.get(row.text(("language", "lang")).lower(), "en"),
        source=source,
        license=options.license or row.text(("license", "licence")),
        split_key=row.text((options.split_key.lower(),), needed=True) if options.split_key else row.text(("split_key",)),
    )
    check_timeline(timeline, row.where)
    return timeline


def find_video(name: str, file: str, folder: Path) -> Path | None:
    """The file of a video, by its path or by its id with any suffix of a video; None where there is none."""
    for given in (file, name):
        if given:
            path = folder / given
            named = [path] if path.suffix.lower() in VIDEO_SUFFIXES else [path.with_name(path.name + s) for s in VIDEO_SUFFIXES]
            found = next(filter(_is_file, named), None)
            if found is not None:
                return found
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _duration(row: Row, file: Path | None, last: float, options: ReadOptions) -> float:
    name = row.name(DURATION)
    if name is not None:
        given = row.time(row.values[name], name)
        if given <= 0:
            raise row.error(name, row.values[name], "it must be a positive number of seconds")
        return given
    if file is not None and options.probe:
        from data_pipeline.media.decode import probe_video  # loads a decoder: only where a file must be opened

        return probe_video(file).duration
    if options.last_end and last > 0:
        return last
    raise InputError(
        f"{row.where} lacks the field duration, and no video file tells it; add it, name the folder of the videos as media root, "
        "or let the end of the last segment stand for it"
    )


def _fit(segment: Segment, duration: float, row: Row) -> Segment:
    """Rounded times end with the video, and so does what is about all of it; what lies behind its end is a fault."""
    if segment.level == "video" and segment.end is None:
        return dataclasses.replace(segment, end=duration)
    begin, end = segment.begin, segment.end
    _inside(begin, begin if end is None else end, duration, f"{row.where} has a segment, {segment.text[:40]!r},")
    begin = min(begin, duration)
    evident = None if segment.evident is None else max(min(segment.evident, duration), begin)
    return dataclasses.replace(segment, begin=begin, end=None if end is None else min(end, duration), evident=evident)


def _fit_question(question: GivenQuestion, duration: float, row: Row) -> GivenQuestion:
    if question.evidence is None:
        return question
    begin, end = question.evidence
    _inside(begin, end, duration, f"{row.where} has a question, {question.text[:40]!r}, with evidence")
    return dataclasses.replace(question, evidence=(min(begin, duration), min(end, duration)))


def _inside(begin: float, end: float, duration: float, what: str) -> None:
    """
    Raises:
        InputError: the stretch lies behind the end of the video, by more than rounding explains.
    """
    if end > duration + _OVERHANG or (begin >= duration and end > duration):
        raise InputError(f"{what} from {begin:g} to {end:g} s, but lasts {duration:g} s; correct one of them")


def known_from(begin: float, end: float | None, options: ReadOptions, default: str) -> float | None:
    """`Segment.evident` of a stretch by the user's choice, else the format's; None leaves it to the level."""
    choice = options.evident or default
    if not choice:
        return None
    last = begin if end is None else end
    return {"begin": begin, "middle": (begin + last) / 2, "end": last}[choice]


def names_of(row: Row) -> tuple[str, ...]:
    """Entities of a row: a list, or a text separated by commas or semicolons."""
    value = row.get(("entities", "objects", "participants"))
    if isinstance(value, str):
        value = value.replace(";", ",").split(",")
    if not isinstance(value, Sequence):
        return ()
    return tuple(str(v).strip() for v in value if isinstance(v, str) and v.strip())
