"""Rows of messages, each with a role and a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.formats.parsed import MediaColumns, ParsedRow, refuse_foreign, with_markers
from data_pipeline.formats.report import RowError
from data_pipeline.schema import Message


@dataclass(frozen=True)
class Tags:
    """How a message names its parts and its speaker."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    observation_tag: str = "observation"
    function_tag: str = "function_call"
    system_tag: str = "system"

    @property
    def roles(self) -> dict[str, str]:
        """Tag -> our role."""
        return {self.user_tag: "user", self.assistant_tag: "assistant", self.system_tag: "system"}


PLAIN_TAGS = Tags(role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant")


@dataclass(frozen=True)
class ShareGptFormat:
    """Names of the columns and tags."""

    messages: str = "conversations"
    system: str = "system"
    """Column of a system text, for rows whose messages have none."""
    tags: Tags = field(default_factory=Tags)
    media: MediaColumns = field(default_factory=MediaColumns)

    def parse(self, row: Mapping[str, Any]) -> ParsedRow:
        """Raises RowError where the row must be dropped."""
        refuse_foreign(row, self.media)
        messages = read_messages(row, self.messages, self.tags)
        system = row.get(self.system)
        if isinstance(system, str) and system and messages[0].role != "system":
            messages.insert(0, Message(role="system", content=system))
        for message in messages:
            message.content = with_markers(message.content)
        return ParsedRow(messages, self.media.entries(row))


def read_messages(row: Mapping[str, Any], column: str, tags: Tags) -> list[Message]:
    """The messages of a row as they are written.

    Raises:
        RowError: there are none, or one has no text, an unknown speaker, or is a tool call.
    """
    turns = row.get(column)
    if not isinstance(turns, list) or not turns:
        raise RowError("no messages", f"column {column} is {turns!r:.60}")
    roles = tags.roles
    messages = []
    for turn in turns:
        speaker = str(turn.get(tags.role_tag)) if isinstance(turn, Mapping) else ""
        if speaker in (tags.observation_tag, tags.function_tag):
            raise RowError("row has tools", f"a message is of {speaker}; tool calls are not trained")
        content = turn.get(tags.content_tag) if isinstance(turn, Mapping) else None
        if speaker not in roles or not isinstance(content, str):
            raise RowError("message without a known role and text", f"message {turn!r:.80}")
        messages.append(Message(role=roles[speaker], content=content))
    return messages
