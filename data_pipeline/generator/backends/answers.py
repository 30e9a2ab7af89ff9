"""From the text of an answer to JSON of a schema."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

MOST_LETTERS = 1_000_000
"""Of an answer; a longer one is not read."""
DEEPEST = 40
"""Levels of an answer; none of ours has more than four."""
_THOUGHT = re.compile(r"<(think|thinking|thought)>", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(r"</(think|thinking|thought)>", re.IGNORECASE)
_WORDS = re.compile(r"\{(?=[^\s\"{}\[\]])")
"""A brace that cannot begin a JSON object with fields: one of the words around it."""
_MOST_BRACES = 100
_MOST_DIGITS = 300
"""Of a whole number: longer ones are beyond floating point."""
_REFUSAL = re.compile(
    r"\b(I('m| am) (sorry|unable|not able)|I (can('|no)?t|cannot|won't|must decline)|as an AI)\b|抱歉|我(不能|无法)",
    re.IGNORECASE,
)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


class Unreadable(ValueError):
    """Why a text is no JSON of the schema, in words that the model can be told."""


def read_answer(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object of an answer; thoughts, code fences and words around it are taken away.

    Raises:
        Unreadable: there is none, or it does not fit the schema.
    """
    if len(text) > MOST_LETTERS:
        raise Unreadable(f"it has {len(text)} characters")
    behind = 0
    for end in _THOUGHT_ENDS.finditer(text):
        behind = end.end()
    text = text[behind:]
    start, thought = text.find("{"), _THOUGHT.search(text)
    if thought is not None and (start < 0 or thought.start() < start):
        raise Unreadable("its thoughts do not end, so no answer stands behind them")
    if start < 0:
        raise Unreadable("it holds no JSON object")
    fitting: dict[str, dict[str, Any]] = {}
    faults = []
    for value in _objects(text):
        fault = schema_fault(value, schema)
        if fault:
            faults.append(fault)
        else:
            fitting[json.dumps(value, sort_keys=True)] = value
    if len(fitting) > 1:
        raise Unreadable(f"it holds {len(fitting)} different answers")
    if not fitting:
        raise Unreadable(faults[0])
    return next(iter(fitting.values()))


def _objects(text: str) -> list[Any]:
    """All objects of a text that stand in no other one; braces of the words around them are passed over.

    Raises:
        Unreadable: there is none, or one that begins like JSON is none.
    """
    decoder = json.JSONDecoder(
        parse_constant=_no_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_each_once, strict=False
    )
    found: list[Any] = []
    start, first_fault = text.find("{"), ""
    for _ in range(_MOST_BRACES):
        if start < 0:
            break
        try:
            value, end = decoder.raw_decode(text, start)
            json.dumps(value, ensure_ascii=False).encode()
            found.append(value)
        except RecursionError:
            raise Unreadable("it is nested too deeply") from None
        except ValueError as error:
            first_fault = first_fault or f"it is not valid JSON ({error})"
            if not _WORDS.match(text, start):
                raise Unreadable(first_fault) from None
            end = start + 1
        start = text.find("{", end)
    if not found:
        raise Unreadable(first_fault)
    return found


def is_refusal(text: str) -> bool:
    """Whether a text without JSON declines to answer."""
    return "{" not in text and bool(_REFUSAL.search(text[:500].replace("’", "'")))


def schema_fault(value: Any, schema: Mapping[str, Any], where: str = "", depth: int = 0) -> str:
    """What of a value does not fit a schema, or ''.

    Of JSON Schema it knows what our schemas use: type, properties, required, additionalProperties (false), items, enum,
    minimum and maximum.
    """
    name = where or "the answer"
    if depth > DEEPEST:
        return f"{name} is nested too deeply"
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_has_type(value, kind) for kind in kinds):
            return f"{name} must be of type {' or '.join(kinds)}, not {_short(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{name} is {_short(value)}; it must be one of {', '.join(map(repr, schema['enum']))}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        if not low <= value <= high:
            return f"{name} is {_short(value)}; it must lie within {low}..{high}"
    if isinstance(value, dict):
        return _object_fault(value, schema, where, depth)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            fault = schema_fault(item, schema["items"], f"{where}[{index}]", depth + 1)
            if fault:
                return fault
    return ""


def _object_fault(value: dict[str, Any], schema: Mapping[str, Any], where: str, depth: int) -> str:
    properties = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            return f"{where or 'the answer'} lacks the field {key}"
    for key, item in value.items():
        inner = f"{where}.{key}" if where else key
        if key in properties:
            fault = schema_fault(item, properties[key], inner, depth + 1)
            if fault:
                return fault
        elif schema.get("additionalProperties") is False:
            return f"{_short(inner)} is a field that the answer must not have"
    return ""


def _has_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return False
    return isinstance(value, _TYPES[kind])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond all numbers")
    return value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:40]}... has {len(text)} digits")
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose fields are told once each: of two values nobody knows which one is meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key in values if sum(one == key for one, _ in pairs) > 1)
        raise ValueError(f"the field {_short(twice)} stands there twice")
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
