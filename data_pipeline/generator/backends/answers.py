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
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL | re.IGNORECASE)
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
    text = _THOUGHT.sub("", text, count=1)
    fenced = _FENCE.search(text)
    text = fenced.group(1) if fenced else text
    start = text.find("{")
    if start < 0:
        raise Unreadable("it holds no JSON object")
    try:
        value, _ = json.JSONDecoder(parse_constant=_no_constant, strict=False).raw_decode(text, start)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"it is not valid JSON ({error})") from None
    fault = schema_fault(value, schema)
    if fault:
        raise Unreadable(fault)
    found: dict[str, Any] = value
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
