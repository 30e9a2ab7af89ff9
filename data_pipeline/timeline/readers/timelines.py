"""Our own JSON lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.videos import find_video
from data_pipeline.timeline.timeline import Timeline
from data_pipeline.timeline.values import parse_line, timeline_from_dict, timeline_lines
from model.errors import InputError


def read_own(path: Path, options: ReadOptions) -> Iterator[Timeline]:
    """Timelines as they were written; a relative video is looked for in the media root, else beside the file.

    Options about segments and durations have no effect: they were applied when the timelines were made.

    Raises:
        InputError: the file is missing, an id comes twice, or a line is not sound and the options do not pass over faults.
    """
    seen: set[str] = set()
    for line, where in timeline_lines(path):
        try:
            timeline = timeline_from_dict(parse_line(line, where), where)
            if timeline.id in seen:
                raise InputError(f"{where} field id is {timeline.id!r}, as of an earlier line; give every video an id of its own")
        except InputError as error:
            options.fault(error)
            continue
        seen.add(timeline.id)
        if options.on_video is not None:
            options.on_video(timeline.id)
        yield _with_options(timeline, path, options)
    if not seen:
        raise InputError(f"{path} holds no timeline that can be used; make some with `moss data timeline`")


def _with_options(timeline: Timeline, path: Path, options: ReadOptions) -> Timeline:
    file = find_video("", timeline.video, options.media_root or path.parent)
    return dataclasses.replace(
        timeline,
        video=timeline.video if file is None else str(file),
        language=options.language or timeline.language,
        source=options.source or timeline.source,
        license=options.license or timeline.license,
    )
