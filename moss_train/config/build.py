"""Plain nested values to dataclasses and back, with errors that name the full path of a field, its value and the remedy."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from model.errors import InputError

T = TypeVar("T")
MISSING = "???"
"""Hydra's mark for a value that has to be given."""


def unknown_key(path: str, allowed: typing.Iterable[str]) -> InputError:
    """The error for a key that no field has; suggests the nearest name."""
    parent, _, name = path.rpartition(".")
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    known = f"use one of {', '.join(names)}" if names else "see --print-config for the known ones"
    hint = f"did you mean {parent + '.' if parent else ''}{near[0]}" if near else known
    return InputError(f"{path} is not a known setting; {hint}")


def build(cls: type[T], values: Any, path: str = "") -> T:
    """Construct the dataclass `cls` from nested plain values.

    Raises:
        InputError: an unknown key, a missing value, a value of another type, or one that the dataclass refuses.
    """
    name = path or "the configuration"
    if not isinstance(values, Mapping):
        raise InputError(f"{name} is {values!r}; it must be a group of settings: {', '.join(_field_names(cls))}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise unknown_key(_join(path, str(key)), hints)
    built: dict[str, Any] = {}
    for spec in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
        if spec.name in values and values[spec.name] != MISSING:
            built[spec.name] = convert(hints[spec.name], values[spec.name], _join(path, spec.name))
        elif required or spec.name in values:
            raise InputError(f"{_join(path, spec.name)} is not set; give it a value")
    return cls(**built)


def convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as the type `kind` of a dataclass field; `path` names the field in errors."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in parts:
            return None
        return convert(next(p for p in parts if p is not type(None)), value, path)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, path)  # type: ignore[arg-type]
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise _wrong(path, value, "a list")
        items = [convert(parts[0], item, f"{path}[{i}]") for i, item in enumerate(value)]
        return items if origin is list else tuple(items)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(path, value, "a group of settings")
        return {str(key): convert(parts[1], item, _join(path, str(key))) for key, item in value.items()}
    return _scalar(kind, value, path)


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as dicts, lists and scalars: what YAML and Hydra take."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def defaults(cls: type) -> dict[str, Any]:
    """Default values of a dataclass as plain values; fields without a default are marked as missing."""
    result: dict[str, Any] = {}
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        if spec.default is not dataclasses.MISSING:
            result[spec.name] = to_plain(spec.default)
        elif dataclasses.is_dataclass(hints[spec.name]):
            result[spec.name] = defaults(typing.cast(type, hints[spec.name]))
        elif spec.default_factory is not dataclasses.MISSING:
            result[spec.name] = to_plain(spec.default_factory())
        else:
            result[spec.name] = MISSING
    return result


def _scalar(kind: Any, value: Any, path: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and is_number and float(value).is_integer():
        return int(value)
    if kind is float and is_number:
        return float(value)
    if kind is str and (isinstance(value, str) or is_number):
        return str(value)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    raise _wrong(path, value, words.get(kind, str(kind)))


def _wrong(path: str, value: Any, wanted: str) -> InputError:
    return InputError(f"{path} is {value!r}; it must be {wanted}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _field_names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]
