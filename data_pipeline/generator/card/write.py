"""Writing the card: a page and a file of its numbers."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.generator.card.choose import choose_rows
from data_pipeline.generator.card.collect import Build, read_build
from data_pipeline.generator.card.numbers import numbers_of
from data_pipeline.generator.card.page import render_page
from data_pipeline.generator.card.row_view import RowView, row_view
from data_pipeline.generator.card.thumbnails import find_video, thumbnails
from model.errors import InputError

PICTURE_LETTERS = 3_000_000
"""Of all pictures together; rows beyond that are shown without, and the page stays below 5 MB."""


@dataclass(frozen=True)
class CardSummary:
    """What was written."""

    page: Path
    numbers: Path
    rows: int
    """Rows of the build."""
    shown: int
    """Rows that the page shows."""
    size: int
    """Bytes of the page."""


def write_card(
    build_folder: str | os.PathLike[str], out_html: str | os.PathLike[str], *, rows_each: int = 2, seed: int = 0
) -> CardSummary:
    """Write the page, and `card.json` beside it (`NAME.json` where the page is called `NAME.html` but not `report.html`).

    Args:
        build_folder: what `moss data generate` writes; it need not have come to its end.
        rows_each: rows of each behaviour that are shown.
        seed: of their choice.

    Raises:
        InputError: the folder holds no finished part, or a file of it is damaged. Nothing is written then.
    """
    out = Path(out_html)
    build = read_build(Path(build_folder))
    numbers = numbers_of(build)
    views = _views(build, list(numbers["behaviours"]), rows_each, seed)
    page = render_page(build, numbers, views)
    beside = out.with_name("card.json") if out.stem in ("report", "card") else out.with_suffix(".json")
    _write(beside, json.dumps(numbers, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    _write(out, page)
    return CardSummary(out, beside, int(numbers["totals"]["rows"]), len(views), out.stat().st_size)


def _views(build: Build, behaviours: list[str], each: int, seed: int) -> list[RowView]:
    left = PICTURE_LETTERS
    views = []
    for chosen in choose_rows(build.parts, behaviours, each, seed):
        view = row_view(chosen)
        left -= _fill(view, find_video(build.folder, chosen.part, chosen.dialogue), left)
        views.append(view)
    return views


def _fill(view: RowView, video: Path | None, room: int) -> int:
    """Put pictures into the strip, or say why there are none; returns the letters that they take."""
    if video is None:
        view.note = "The video of this row is not in the build folder, so its frames are not shown."
        return 0
    try:
        images = thumbnails(video, [picture.time for picture in view.pictures])
    except InputError as error:
        view.note = f"The frames cannot be shown: {error}"
        return 0
    size = sum(map(len, images))
    if size > room:
        view.note = "The frames are left out to keep the page small."
        return 0
    for picture, image in zip(view.pictures, images, strict=True):
        picture.image = image
    return size


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
