"""Recorded answers: JSON lines, found by the digest of a request or by words in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.generator.backends.wire import digest
from model.errors import InputError

_FIELDS = ("role", "digest", "contains", "answer", "about")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An answer and what it answers."""

    answer: dict[str, Any]
    role: str = ""
    """Name of the schema that is asked for; empty fits any."""
    digest: str = ""
    """Of the messages (`wire.digest`); empty fits any."""
    contains: tuple[str, ...] = ()
    """Texts that the user's message must hold, all of them. `~` in front makes one a regular expression."""

    def fits(self, role: str, key: str, text: str) -> bool:
        """Whether it answers a request."""
        if (self.role and role and self.role != role) or (self.digest and self.digest != key):
            return False
        return all(re.search(one[1:], text) if one.startswith("~") else one in text for one in self.contains)


@dataclass
class Recording:
    """Answers in the order in which they are tried."""

    entries: list[Entry] = field(default_factory=list)

    def find(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a request's body, or None: the first entry that fits."""
        role, key, text = role_of(values), digest(values), user_text(values)
        return next((entry.answer for entry in self.entries if entry.fits(role, key, text)), None)


def role_of(values: Mapping[str, Any]) -> str:
    """Name of the schema that a request asks for; empty where it names none."""
    form = values.get("response_format")
    schema = form.get("json_schema") if isinstance(form, dict) else None
    return str(schema.get("name", "")) if isinstance(schema, dict) else ""


def user_text(values: Mapping[str, Any]) -> str:
    """Text of the first message of the user."""
    for message in values.get("messages", ()):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                return "\n".join(part.get("text", "") for part in content)
            return str(content)
    return ""


def read_recording(path: Path) -> Recording:
    """Entries of a file; fields are role, digest, contains, answer, and about for whoever reads the file.

    Raises:
        InputError: naming the line and the field.
    """
    if not path.is_file():
        raise InputError(f"recording {path} does not exist; model.record writes one")
    return Recording(list(_entries(path.read_text(encoding="utf-8").splitlines(), str(path))))


def _entries(lines: Iterable[str], name: str) -> Iterable[Entry]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is not JSON ({error}); write one answer a line") from None
        if not isinstance(values, dict) or not isinstance(values.get("answer"), dict):
            raise InputError(f"{where} has no object as its answer")
        unknown = sorted(set(values) - set(_FIELDS))
        if unknown:
            raise InputError(f"{where} has the unknown field {unknown[0]!r}; known are {', '.join(_FIELDS)}")
        contains = values.get("contains", [])
        if not isinstance(contains, list) or not all(isinstance(one, str) for one in contains):
            raise InputError(f"{where} field contains is {contains!r}; give a list of texts")
        yield Entry(
            answer=values["answer"], role=values.get("role", ""), digest=values.get("digest", ""), contains=tuple(contains)
        )
