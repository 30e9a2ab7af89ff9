"""What a format makes of one row, and the rules that formats share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from data_pipeline.formats.media_entries import MediaEntry, media_entries
from data_pipeline.formats.report import RowError
from data_pipeline.schema import Message
from data_pipeline.text.tokenizer import IMAGE, VIDEO
from model.errors import InputError


@dataclass
class ParsedRow:
    """Messages and media of a row; no file was looked at."""

    messages: list[Message]
    entries: list[MediaEntry] = field(default_factory=list)
    template: str | None = None
    """How the row is to be trained; None leaves it to the import."""
    meta: dict[str, Any] = field(default_factory=dict)


class RowFormat(Protocol):
    """Reads the rows of one format."""

    def parse(self, row: Mapping[str, Any]) -> ParsedRow:
        """Raises RowError where the row must be dropped."""


@dataclass(frozen=True)
class MediaColumns:
    """Columns of paths, and of what this model cannot learn from."""

    images: str = "images"
    videos: str = "videos"
    audios: str = "audios"
    tools: str = "tools"

    def entries(self, row: Mapping[str, Any]) -> list[MediaEntry]:
        """Files of a row: images, then videos."""
        return column_entries(row.get(self.images), "image") + column_entries(row.get(self.videos), "video")


def column_entries(values: Any, kind: str) -> list[MediaEntry]:
    """Files of one column; an empty or missing one has none.

    Raises:
        RowError: it is no list of paths and descriptors.
    """
    try:
        return media_entries(values or [], kind)
    except InputError as error:
        raise RowError("media column cannot be read", str(error)) from None


def with_markers(text: str) -> str:
    """The shorter spelling of media markers made the tokenizer's."""
    return text.replace("<image>", IMAGE).replace("<video>", VIDEO)


def refuse_foreign(row: Mapping[str, Any], columns: MediaColumns) -> None:
    """Raises RowError for rows of audio, tools and preference pairs."""
    if row.get(columns.audios):
        raise RowError("row has audio", f"column {columns.audios} is {row[columns.audios]!r:.60}; this model hears nothing")
    if row.get(columns.tools) not in (None, "", "[]", [], {}):
        raise RowError("row has tools", f"column {columns.tools} is {row[columns.tools]!r:.60}; tool calls are not trained")
    if row.get("chosen") and row.get("rejected"):
        raise RowError("row is a ranking pair", "it has chosen and rejected; preferences are not trained")
