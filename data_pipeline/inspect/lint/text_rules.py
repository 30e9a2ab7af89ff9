"""What the fields and texts of a sample say, without its media."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.schema import Message, Sample
from data_pipeline.shards.schema import sample_from_dict
from data_pipeline.text.template import split_messages
from data_pipeline.text.tokenizer import ELLIPSIS, IMAGE, SILENCE, VIDEO
from model.errors import InputError

Found = Iterator[tuple[str, str]]
"""Rule and text of every finding."""

ROLES = ("system", "user", "assistant")
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")


def parse(values: Any, where: str) -> tuple[Sample | None, list[tuple[str, str]]]:
    """The sample if the loader takes its fields, else the reasons, by rule where one is known."""
    try:
        return sample_from_dict(values, where), []
    except InputError as error:
        reason = str(error).removeprefix(where).lstrip(": ")
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError) as error:
        reason = f"the fields cannot be read: {type(error).__name__} {error}"
    return None, list(_explain(values)) or [("schema", reason)]


def text_findings(sample: Sample) -> Found:
    """Oddities of a sound sample."""
    for name in ("license", "source"):
        if not getattr(sample, name).strip():
            yield f"no-{name}", "it is empty"
    if sample.kind == "dense":
        return
    for index, message in enumerate(sample.messages):
        allowed = _allowed(message.role, sample.kind)
        foreign = sorted({token for token in _SPECIAL.findall(message.content) if token not in allowed})
        if foreign:
            yield "special-token", f"messages[{index}] of the {message.role} holds {', '.join(foreign)}"
        if message.role == "assistant" and not _words(message.content):
            yield "empty-answer", f"messages[{index}] is {message.content[:60]!r}"


def teaches_nothing(sample: Sample) -> bool:
    """Whether a timed dialogue has neither words nor silence in any answer."""
    answers = (m.content for m in sample.messages if m.role == "assistant")
    return sample.kind == "realtime" and not any(_words(content) for content in answers)


def _words(content: str) -> str:
    return content.replace(VIDEO, "").replace(IMAGE, "").strip()


def _allowed(role: str, kind: str) -> tuple[str, ...]:
    if kind == "realtime" and role == "assistant":
        return (VIDEO, IMAGE, SILENCE, ELLIPSIS)
    if kind == "realtime" and role == "system":  # such prompts speak of the token
        return (VIDEO, IMAGE, SILENCE)
    return (VIDEO, IMAGE)


def _explain(values: Any) -> Found:
    """Known faults of fields that the loader refuses; tolerant of everything else about them."""
    if not isinstance(values, Mapping):
        return
    messages, media = values.get("messages"), values.get("media", [])
    if isinstance(media, list):
        for index, item in enumerate(media):
            times = item.get("frame_times") if isinstance(item, Mapping) else None
            if _falls(times):
                yield "frame-times", f"media[{index}].frame_times must rise from 0 or later"
    sound = isinstance(messages, list) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    )
    if not sound or values.get("kind") == "dense":
        return
    assert isinstance(messages, list)
    yield from _roles(messages)
    if isinstance(media, list) and all(isinstance(m, Mapping) for m in media):
        yield from _markers(messages, media)


def _roles(messages: list[Mapping[str, str]]) -> Found:
    unknown = sorted({m["role"] for m in messages} - set(ROLES))
    if unknown:
        yield "unknown-role", f"roles are {', '.join(m['role'] for m in messages)}; not known is {', '.join(unknown)}"
        return
    try:
        split_messages([Message(role=m["role"], content=m["content"]) for m in messages])
    except InputError as error:
        yield "role-order", str(error)


def _markers(messages: list[Mapping[str, str]], media: list[Mapping[str, Any]]) -> Found:
    for kind, marker in (("image", IMAGE), ("video", VIDEO)):
        found = sum(m["content"].count(marker) for m in messages)
        owed = 0
        for item in media:
            if item.get("type") == kind:
                times = item.get("frame_times")
                one = item.get("markers", "one") == "one"
                owed += 1 if one else len(times) if isinstance(times, list) else 0
        if found != owed:
            yield "marker-count", f"the text has {found} {marker} markers but the {kind} media call for {owed}"


def _falls(times: Any) -> bool:
    if not isinstance(times, list) or not times or not all(isinstance(t, int | float) for t in times):
        return False
    return not (times[0] >= 0 and all(a < b for a, b in itertools.pairwise(times)))
