"""Words of the stories: numbers, lists, and every kind, action, verb and sign in English and Chinese."""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count_words(number: int, noun: str = "object") -> str:
    """`no object`, `one object`, `two objects`."""
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} {noun}{'s' if number > 1 else ''}"


def times_words(number: int) -> str:
    """`never`, `once`, `twice`, `three times`."""
    if number < 3:
        return ("never", "once", "twice")[number]
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} times"


def listed(parts: Sequence[str]) -> str:
    """`red ball`, `red ball and blue flag`, `red ball, blue flag and white star`; empty for nothing."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)
