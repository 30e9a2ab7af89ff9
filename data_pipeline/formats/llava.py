"""LLaVA's rows: conversations of `from` and `value`, with `image` and `video` naming one file or several.

Markers follow LLaVA's own leniency: media without any marker are shown before the first question, and `<image>` stands for a
video in a row that has videos but no image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipeline.formats.parsed import MediaColumns, ParsedRow, column_entries, refuse_foreign, with_markers
from data_pipeline.formats.report import RowError
from data_pipeline.formats.sharegpt import PLAIN_TAGS, Tags, read_messages
from data_pipeline.schema import Message
from data_pipeline.text.tokenizer import IMAGE, VIDEO

MEDIA_KEYS = ("image", "video")


class LlavaFormat:
    """Reads rows with or without media."""

    def parse(self, row: Mapping[str, Any]) -> ParsedRow:
        """Raises RowError where the row must be dropped."""
        refuse_foreign(row, MediaColumns())
        messages = _messages(row)
        images, videos = (column_entries(row.get(key), key) for key in MEDIA_KEYS)
        text = "".join(m.content for m in messages)
        owed = IMAGE * len(images) + VIDEO * sum(len(e.times or [0]) for e in videos)
        if owed and IMAGE not in text and VIDEO not in text:
            first = next(m for m in messages if m.role == "user")
            first.content = f"{owed}\n{first.content}"
        elif videos and not images and VIDEO not in text:
            for message in messages:
                message.content = message.content.replace(IMAGE, VIDEO)
        meta = {"id": row["id"]} if isinstance(row.get("id"), str | int) else {}
        return ParsedRow(messages, images + videos, meta=meta)


def _messages(row: Mapping[str, Any]) -> list[Message]:
    turns = row.get("conversations")
    first = turns[0] if isinstance(turns, list) and turns else {}
    tags = PLAIN_TAGS if isinstance(first, Mapping) and "role" in first else Tags()
    messages = read_messages(row, "conversations", tags)
    for message in messages:
        message.content = with_markers(message.content)
    start = 1 if messages[0].role == "system" else 0
    if len(messages) > start and messages[start].role == "assistant":
        del messages[start]  # an answer to nothing; LLaVA leaves it out too
    if not any(m.role == "user" for m in messages):
        raise RowError("roles do not alternate", "there is no message of human")
    return messages
