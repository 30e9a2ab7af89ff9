"""One object of an annotation file, asked for its fields by any of the names that they go by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import InputError

BEGIN = ("begin", "start", "start_time", "start_sec", "begin_time", "t0", "onset", "from", "t_start", "starttime")
END = ("end", "stop", "end_time", "end_sec", "stop_time", "t1", "offset", "to", "t_end", "endtime")
SPAN = ("segment", "timestamp", "interval", "span", "time_span", "time_range", "timestamps", "time")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,3}):(\d{1,2}(?:[.,]\d+)?)")


@dataclass(frozen=True)
class Row:
    """Values with what messages call them."""

    values: Mapping[str, Any]
    where: str
    """Such as `captions.jsonl row 3`."""

    def name(self, names: Sequence[str]) -> str | None:
        """The first of the names whose value is there; case does not matter."""
        by_name = {str(key).strip().lower(): str(key) for key in self.values}
        for name in names:
            if name in by_name and self.values[by_name[name]] not in (None, "", [], {}):
                return by_name[name]
        return None

    def get(self, names: Sequence[str]) -> Any:
        """The value of the first name that is there; None where none is."""
        name = self.name(names)
        return None if name is None else self.values[name]

    def text(self, names: Sequence[str], *, needed: bool = False) -> str:
        """A text, or a number as text; empty where it is missing.

        Raises:
            InputError: it is needed and missing, or of another type.
        """
        name = self.name(names)
        value = None if name is None else self.values[name]
        if isinstance(value, list) and len(value) == 1:  # many files keep one text in a list
            value = value[0]
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if value is not None and not isinstance(value, str):
            raise self.error(name or names[0], value, "it must be a text")
        if value is not None and any("\ud800" <= c <= "\udfff" for c in value):
            raise self.error(name or names[0], value, "it must be valid Unicode")
        if needed and not (value or "").strip():
            raise self.lacks(names)
        return (value or "").strip()

    def seconds(self, names: Sequence[str]) -> float | None:
        """Seconds, as a number, a text of one, or [hours:]minutes:seconds; None where they are missing.

        Raises:
            InputError: it is something else.
        """
        name = self.name(names)
        return None if name is None else self.time(self.values[name], name)

    def time(self, value: Any, name: str) -> float:
        """Seconds of one value.

        Raises:
            InputError: it is no time.
        """
        number: Any = value
        if isinstance(value, str):
            clock = _CLOCK.fullmatch(value.strip())
            if clock:
                hours, minutes, seconds = clock.groups()
                return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
            try:
                number = float(value.strip().removesuffix("s"))
            except ValueError:
                number = None
        if isinstance(number, bool) or not isinstance(number, int | float) or not _finite(number):
            raise self.error(name, value, "it must be seconds, such as 12.5 or 1:02.5")
        return float(number)

    def span(self, *, point: Sequence[str] = (), needed: bool = True) -> tuple[float, float | None] | None:
        """Begin and end: of a pair in one field, or of two fields. The end is None where only a beginning, or a point, is given.

        Raises:
            InputError: it is missing although it is needed, is no time, is negative, or ends before it begins.
        """
        name = self.name(SPAN)
        if name is not None and isinstance(self.values[name], list):
            return self.pair(self.values[name], name)
        begin, end = self.seconds((*BEGIN, *point)), self.seconds(END)
        if begin is None and name is not None:
            begin = self.time(self.values[name], name)
        if begin is None:
            if needed or end is not None:
                raise self.lacks(BEGIN)
            return None
        return self._rising(begin, end, self.name(END) or "end")

    def pair(self, value: Any, name: str) -> tuple[float, float | None]:
        """Begin and end of a list of two times, also where it is the only item of a list.

        Raises:
            InputError: it is something else.
        """
        pair = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(pair, list) or len(pair) != 2:
            raise self.error(name, value, "it must be a list of two times")
        return self._rising(self.time(pair[0], name), self.time(pair[1], name), name)

    def _rising(self, begin: float, end: float | None, name: str) -> tuple[float, float | None]:
        if begin < 0:
            raise self.error(self.name(BEGIN) or name, begin, "it must not be negative")
        if end is not None and end < begin:
            raise self.error(name, end, f"it must not lie before the beginning, {begin:g} s")
        return begin, end

    def rows(self, names: Sequence[str]) -> list[Row] | None:
        """Objects of a list, also where it is an object of objects; None where it is missing.

        Raises:
            InputError: it holds something else.
        """
        name = self.name(names)
        if name is None:
            return None
        value = self.values[name]
        listed = list(value.values()) if isinstance(value, dict) and all(isinstance(v, dict) for v in value.values()) else value
        if not isinstance(listed, list):
            raise self.error(name, value, "it must be a list of objects")
        for index, item in enumerate(listed):
            if not isinstance(item, dict):
                raise self.error(f"{name}[{index}]", item, "it must be an object")
        return [Row(item, f"{self.where} {name}[{index}]") for index, item in enumerate(listed)]

    def error(self, name: str, value: Any, remedy: str) -> InputError:
        """One sentence about a field."""
        shown = repr(value)
        return InputError(f"{self.where} field {name} is {shown if len(shown) <= 80 else shown[:77] + '...'}; {remedy}")

    def lacks(self, names: Sequence[str]) -> InputError:
        """One sentence about a missing field."""
        others = f" (or {', '.join(names[1:4])})" if len(names) > 1 else ""
        return InputError(f"{self.where} lacks the field {names[0]}{others}; add it")


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
