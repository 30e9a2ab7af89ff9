"""Times of day as they are spoken: written with a colon they would look like a time of the video, of which nobody may speak."""

from __future__ import annotations

import re

_CLOCK = re.compile(r"(?<![\d:])(\d{1,2}):(\d{2})(?![\d:])")
# fmt: off
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
# fmt: on
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_HAN = "零一二三四五六七八九"


def spoken_clock(text: str, language: str) -> str:
    """`10:12` becomes `ten twelve`, `9:05` `nine oh five`; in Chinese `十点十二分`."""
    if ":" not in text:
        return text
    return _CLOCK.sub(lambda found: _say(int(found[1]), int(found[2]), language), text)


def _say(hour: int, minute: int, language: str) -> str:
    if language == "zh":
        return f"{_chinese(hour)}点{'零' if 0 < minute < 10 else ''}{_chinese(minute) + '分' if minute else '整'}"
    if not minute:
        return f"{_english(hour)} o'clock"
    return f"{_english(hour)} {'oh ' if minute < 10 else ''}{_english(minute)}"


def _english(number: int) -> str:
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")


def _chinese(number: int) -> str:
    if number < 10:
        return _HAN[number]
    tens, ones = divmod(number, 10)
    return ("" if tens == 1 else _HAN[tens]) + "十" + (_HAN[ones] if ones else "")
