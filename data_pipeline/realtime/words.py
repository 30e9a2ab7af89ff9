"""Text in pieces that can stand in a slot: words, or characters of Chinese, each with the space in front of it."""

from __future__ import annotations

import re

from data_pipeline.realtime.emission import CountTokens

_HAN = "㐀-䶿一-鿿豈-﫿"
_HAN_MARKS = "、-〿！-･“”‘’…—"
_UNIT = re.compile(rf"\s*(?:[{_HAN}][{_HAN_MARKS}]*|[^\s{_HAN}]+)|\s+\Z")

_CHARACTER = re.compile(rf"\s*[{_HAN}]")


def units_of(text: str) -> list[str]:
    """Words and Chinese characters with the white space in front and the punctuation behind; joined they are the text."""
    return _UNIT.findall(text)


class CountCache:
    """Counts of tokens that are asked for again and again, such as those of the words of a template.

    Args:
        count: what counts; called once for each text as long as it is remembered.
        entries: texts remembered; beyond that all are forgotten and memory stays bounded.
    """

    def __init__(self, count: CountTokens, entries: int = 200_000) -> None:
        self._count = count
        self._entries = entries
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        found = self._known.get(text)
        if found is None:
            if len(self._known) >= self._entries:
                self._known.clear()
            found = self._known[text] = self._count(text)
        return found


def take_units(units: list[str], room: int, most: int, count: CountTokens) -> tuple[str, list[str], int]:
    """The part of a text that fits into a slot.

    Args:
        units: what is still to be said; not empty.
        room: tokens that the slot holds.
        most: tokens of the first slot of a speech; a longer unit is cut into pieces.

    Returns:
        The part, the units behind it, and the part's tokens; the part is empty where the next unit has to wait.
    """
    taken, used = 0, 0
    while taken < len(units):
        more = count(units[taken])
        if used + more > room:
            break
        used += more
        taken += 1
    part = "".join(units[:taken])
    # counts of a joined text can differ from the sum: a token may span several Chinese characters
    while taken and (used := count(part)) > room:
        taken -= 1
        part = "".join(units[:taken])
    while part and taken < len(units) and _CHARACTER.match(units[taken]) and (more := count(part + units[taken])) <= room:
        part, used, taken = part + units[taken], more, taken + 1
    if part or room < 1 or count(units[0]) <= most:
        return part, units[taken:], used if part else 0
    head = _head(units[0], room, count)
    rest = units[0][len(head) :]
    return head, [rest, *units[1:]] if rest else units[1:], count(head)


def _head(unit: str, room: int, count: CountTokens) -> str:
    """The longest beginning of a word that has at most `room` tokens; the whole of its first character if none has.

    A character of many bytes may take several tokens and cannot be cut, so a slot that holds nothing else may exceed its room.
    """
    for length in range(len(unit) - 1, 0, -1):
        head = unit[:length]
        if head.strip() and count(head) <= room:
            return head
    first = len(unit) - len(unit.lstrip()) + 1
    return unit[:first]
