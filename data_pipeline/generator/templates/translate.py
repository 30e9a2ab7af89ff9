"""From the words of the world into Chinese, exactly and only for what the world says."""

from __future__ import annotations

from functools import lru_cache

from data_pipeline.generator.templates import chinese
from data_pipeline.generator.templates.scene_words import take_apart


class Untranslatable(Exception):
    """A text that is in another language than the dialogue, and not in the words of the world."""


@lru_cache(maxsize=65536)
def to_chinese(text: str) -> str:
    """A value, a name or an event of the world in Chinese; what holds no letters, or Chinese already, stays.

    Raises:
        Untranslatable: it is something else.
    """
    translated = _plain(text) or _noun(text) or _count(text) or _list(text) or _event(text)
    if translated is None:
        raise Untranslatable(text)
    return translated


def _plain(text: str) -> str | None:
    if not any(c.isascii() and c.isalpha() for c in text):
        return text
    if text == "nothing":
        return chinese.NOTHING
    if text in chinese.COLOURS:
        return chinese.COLOURS[text] + "色"
    return chinese.CELLS.get(text) or chinese.ACTIONS.get(text) or chinese.DIRECTIONS.get(text)


def _noun(text: str) -> str | None:
    """`red ball`, `ball`."""
    if text in chinese.KINDS:
        return chinese.KINDS[text]
    colour, _, kind = text.partition(" ")
    if colour in chinese.COLOURS and kind in chinese.KINDS:
        return chinese.COLOURS[colour] + chinese.KINDS[kind]
    return None


def _count(text: str) -> str | None:
    """`two objects`."""
    number, _, kind = text.partition(" ")
    kind = kind.removesuffix("s")
    if number in chinese.COUNTS and kind in chinese.KINDS:
        return chinese.COUNTS[number] + chinese.KINDS[kind]
    return None


def _list(text: str) -> str | None:
    """`red ball and blue flag`."""
    parts = [_noun(part) for part in text.replace(", ", " and ").split(" and ")]
    return "和".join(part for part in parts if part) if len(parts) > 1 and all(parts) else None


def _event(text: str) -> str | None:
    happening = take_apart(text)
    if happening is None:
        noun, _, action = text.rpartition(" ")
        return None if action not in chinese.ACTIONS or not _noun(noun) else f"{_noun(noun)}{chinese.ACTIONS[action]}"
    subject = _noun(happening.subject) if happening.subject else "有东西"
    if subject is None:
        return None
    if not happening.rest:
        return subject + chinese.VERBS[happening.verb]
    rest = chinese.COLOURS[happening.rest] + "色" if happening.rest in chinese.COLOURS else _noun(happening.rest)
    return None if rest is None else subject + chinese.VERBS[happening.verb] + rest
