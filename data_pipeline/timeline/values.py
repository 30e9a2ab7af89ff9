"""Timelines as plain JSON values, as lines of a file, and their digest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline, check_timeline
from model.errors import InputError

Check = Callable[[Any, str], Any]
"""Turns a JSON value into a field's value; the text is what messages call the field."""


def timeline_to_dict(timeline: Timeline) -> dict[str, Any]:
    """JSON values; fields that hold their default are left out, so that equal timelines give equal values."""
    values = _plain(timeline)
    values["segments"] = [_plain(s) for s in timeline.segments]
    if timeline.questions:
        values["questions"] = [_plain(q) for q in timeline.questions]
    return values


def timeline_from_dict(values: Any, where: str = "timeline") -> Timeline:
    """The timeline of JSON values, checked as `check_timeline` does.

    Args:
        where: what messages call it, such as `timelines.jsonl line 3`.

    Raises:
        InputError: a field is unknown, missing, of the wrong type or out of its range; names it and its value.
    """
    timeline = Timeline(**_fields(values, _TIMELINE, ("id", "duration"), where))
    check_timeline(timeline, where)
    return timeline


def content_hash(timeline: Timeline) -> str:
    """SHA-256 of everything in it, in hex: the same on every machine, for equal timelines alone.

    Raises:
        InputError: `meta` holds what JSON cannot.
    """
    return hashlib.sha256(_line(timeline, sort_keys=True).encode()).hexdigest()


def write_timelines(path: str | os.PathLike[str], timelines: Iterable[Timeline]) -> int:
    """Write one timeline a line; the file appears once all of it is written.

    Returns:
        Number of lines.

    Raises:
        InputError: the path is a folder, or a timeline is not sound.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder; give the name of a file, such as {target / 'timelines.jsonl'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for timeline in timelines:
                check_timeline(timeline)
                file.write(_line(timeline) + "\n")
                count += 1
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_timelines(path: str | os.PathLike[str]) -> Iterator[Timeline]:
    """Timelines of a file of JSON lines, one at a time.

    Raises:
        InputError: the file is missing, or a line is no sound timeline; names the line and the field.
    """
    for values, where in timeline_lines(path):
        yield timeline_from_dict(parse_line(values, where), where)


def timeline_lines(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, str]]:
    """Lines that are not empty, with what messages call them.

    Raises:
        InputError: there is no such file.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"timelines {source} do not exist; make them with `moss data timeline`")
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield line, f"{source} line {number}"


def parse_line(line: bytes, where: str) -> Any:
    """JSON of a line.

    Raises:
        InputError: it is not JSON.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested beyond all measure
        raise InputError(f"{where} is not JSON: {error}") from None


def _line(timeline: Timeline, *, sort_keys: bool = False) -> str:
    try:
        text = json.dumps(timeline_to_dict(timeline), ensure_ascii=False, sort_keys=sort_keys, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"timeline {timeline.id!r} cannot be stored as JSON: {error}") from None
    return text


def _plain(value: Timeline | Segment | GivenQuestion) -> dict[str, Any]:
    """Fields that differ from their default; whole seconds are floats too, so that 1 and 1.0 give the same digest."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        if field.name in ("segments", "questions"):
            continue
        content = getattr(value, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if content == default:
            continue
        if isinstance(content, tuple):
            found[field.name] = [float(c) if isinstance(c, int) else c for c in content]
        else:
            found[field.name] = float(content) if isinstance(content, int) else content
    return found


def _fields(values: Any, known: Mapping[str, Check], required: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"{where} is {_short(values)}; it must be an object")
    unknown = [name for name in values if name not in known]
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}; the fields are {', '.join(known)}")
    missing = [name for name in required if name not in values]
    if missing:
        raise InputError(f"{where} lacks the field {missing[0]}")
    return {name: known[name](value, f"{where} field {name}") for name, value in values.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} is {_short(value)}; it must be a text")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where} is {_short(value)}; it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where} is {_short(value)}; it must be a finite number")
    return number


def _perhaps(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _list(check: Check) -> Check:
    def checked(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise InputError(f"{where} is {_short(value)}; it must be a list")
        return tuple(check(item, f"{where}[{index}]") for index, item in enumerate(value))

    return checked


def _span(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where} is {_short(value)}; it must be a list of two seconds")
    return _number(value[0], where), _number(value[1], where)


def _meta(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {_short(value)}; it must be an object")
    return value


def _segment(value: Any, where: str) -> Segment:
    return Segment(**_fields(value, _SEGMENT, ("begin", "text"), where) | {"end": _end(value, where)})


def _end(value: dict[str, Any], where: str) -> float | None:
    end: float | None = _SEGMENT["end"](value.get("end"), f"{where} field end")
    return end


def _question(value: Any, where: str) -> GivenQuestion:
    return GivenQuestion(**_fields(value, _QUESTION, ("text", "answer"), where))


_SEGMENT: dict[str, Check] = {
    "begin": _number,
    "end": _perhaps(_number),
    "text": _text,
    "level": _text,
    "evident": _perhaps(_number),
    "subject": _text,
    "value": _text,
    "entities": _list(_text),
    "change": _text,
    "salience": _number,
    "source": _text,
}
_QUESTION: dict[str, Check] = {
    "text": _text,
    "answer": _text,
    "evidence": _perhaps(_span),
    "kind": _text,
    "choices": _list(_text),
}
_TIMELINE: dict[str, Check] = {
    "id": _text,
    "duration": _number,
    "segments": _list(_segment),
    "questions": _list(_question),
    "video": _text,
    "language": _text,
    "source": _text,
    "license": _text,
    "split_key": _text,
    "meta": _meta,
}
