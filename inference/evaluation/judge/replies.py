"""What of a judge's reply may hold the verdict."""

from __future__ import annotations

import re

_BEGINS = re.compile(r"<(think|thinking|thought)>", re.IGNORECASE)
_ENDS = re.compile(r"</(think|thinking|thought)>", re.IGNORECASE)
_SCALE = re.compile(r"\(?\b0\s*(?:-|–|—|to|\.\.+)\s*(?P<most>10|5)\b\)?|/\s*(?:10|5)\b|\bout of (?:10|5)\b", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def without_thoughts(reply: str) -> str:
    """What stands behind a model's thoughts.

    Raises:
        ValueError: they do not end, so nothing stands behind them.
    """
    ends = list(_ENDS.finditer(reply))
    rest = reply[ends[-1].end() :] if ends else reply
    if _BEGINS.search(rest):
        raise ValueError("its thoughts do not end")
    return rest.strip()


def without_scale(reply: str) -> str:
    """Without what names the scale and is no verdict: 0 to 10, (0-5), /10, out of 10."""
    return _SCALE.sub(" ", reply)


def whole_number(text: str, least: int, most: int) -> int:
    """The only number of a text.

    Raises:
        ValueError: there is none, there are several different ones, or it is no whole one in the range.
    """
    found = set(_NUMBER.findall(without_scale(text)))
    if len(found) != 1:
        raise ValueError(f"{text[:60]!r} has {len(found) or 'no'} numbers; one from {least} to {most} is wanted")
    number = float(found.pop())
    if number != int(number) or not least <= number <= most:
        raise ValueError(f"{text[:60]!r} has {number:g}; a whole number from {least} to {most} is wanted")
    return int(number)
