"""Fields of an answer, checked one by one: a schema is a wish, and not every endpoint grants it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.generator.author import Unfit

LONGEST = 600
"""Characters of one text."""
_TIMES = re.compile(
    r"\b\d{1,2}:\d{2}\b|\b\d+(\.\d+)?\s*(s|sec|secs|seconds?|frames?)\b|\bframe\s+\d|\d+\s*秒|第\s*\d+\s*帧", re.IGNORECASE
)
_MARKERS = re.compile(r"<\|[^|>]*\|>")
_HAN = re.compile(r"[㐀-鿿]")


class Fields:
    """The fields of one object of an answer; whatever is not as it should be makes the answer unfit.

    Args:
        values: what should be an object.
        stage: for the message, as `Rejection.stage`.
        where: the place in the answer, such as `questions[0]`; empty for the answer itself.
    """

    def __init__(self, values: object, stage: str, where: str = "") -> None:
        self.stage = stage
        self.where = where
        if not isinstance(values, Mapping):
            raise Unfit(stage, f"{where or 'the answer'} is {_short(values)}; an object is needed")
        self.values: Mapping[str, Any] = values

    def unfit(self, key: str, why: str) -> Unfit:
        """The exception that names a field, its value and what is wrong with it."""
        return Unfit(self.stage, f"{self._name(key)} is {_short(self.values.get(key))}; {why}")

    def text(self, key: str, empty: bool = False) -> str:
        """A text without line breaks or special tokens."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.unfit(key, "a text is needed")
        value = " ".join(value.split())
        if not (value or empty):
            raise self.unfit(key, "it must not be empty")
        if len(value) > LONGEST:
            raise self.unfit(key, f"it has {len(value)} characters, more than {LONGEST}")
        if _MARKERS.search(value) or any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise self.unfit(key, "it holds special tokens or characters that cannot be said")
        return value

    def spoken(self, key: str, language: str) -> str:
        """A text that can be said: in the language, and without times."""
        value = self.text(key)
        fault = spoken_fault(value, language)
        if fault:
            raise self.unfit(key, fault)
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A finite number within limits."""
        value = self.values.get(key)
        if not _is_number(value):
            raise self.unfit(key, "a number is needed")
        assert isinstance(value, (int, float))
        if not low <= value <= high:
            raise self.unfit(key, f"it must lie within {low:g}..{high:g}")
        return float(value)

    def choice(self, key: str, options: Sequence[str]) -> str:
        """One of several words."""
        value = self.values.get(key)
        if not isinstance(value, str) or value not in options:
            raise self.unfit(key, f"use one of {', '.join(o or 'nothing' for o in options)}")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self.unfit(key, "true or false is needed")
        return value

    def index(self, key: str, size: int) -> int | None:
        """A position in a list of `size`, or None."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < size:
            raise self.unfit(key, f"there are {size} of them, counted from 0")
        return value

    def span(self, key: str, low: float, high: float, what: str) -> tuple[float, float]:
        """Two rising seconds within limits."""
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) != 2 or not all(_is_number(v) for v in value):
            raise self.unfit(key, "two numbers are needed")
        if not low <= value[0] <= value[1] <= high:
            raise self.unfit(key, f"it must rise and lie within {low:g}..{high:g} s, {what}")
        return float(value[0]), float(value[1])

    def items(self, key: str, most: int) -> list[Any]:
        """A list that is not too long."""
        value = self.values.get(key)
        if not isinstance(value, list):
            raise self.unfit(key, "a list is needed")
        if len(value) > most:
            raise Unfit(self.stage, f"{self._name(key)} has {len(value)} entries; {most} are the most that can be used")
        return value

    def objects(self, key: str, most: int) -> list[Fields]:
        """A list of objects."""
        return [Fields(v, self.stage, f"{self._name(key)}[{i}]") for i, v in enumerate(self.items(key, most))]

    def texts(self, key: str, most: int) -> list[str]:
        """A list of texts."""
        entries = self.items(key, most)
        return [Fields({key: v}, self.stage, self.where).text(key, empty=True) for v in entries]

    def _name(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key


def spoken_fault(text: str, language: str) -> str:
    """Why a text cannot be said in a dialogue of a language; empty where it can."""
    if _TIMES.search(text):
        return "it names a time; nobody who watches live speaks of seconds or frames"
    letters = [c for c in text if c.isalpha()]
    han = sum(bool(_HAN.match(c)) for c in letters)
    if language == "zh" and letters and han * 2 < len(letters):
        return "it is not in Chinese"
    if language == "en" and han:
        return "it is not in English"
    return ""


def _is_number(value: object) -> bool:
    """A finite number; whole ones that are too long for a float are none."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 1 << 53
    return isinstance(value, float) and math.isfinite(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
