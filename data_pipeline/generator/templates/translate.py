"""From the words of the world into Chinese, exactly and only for what the world says."""

from __future__ import annotations

import re
from functools import lru_cache

from data_pipeline.generator.templates import chinese
from data_pipeline.generator.templates.scene_words import take_apart
from data_pipeline.world.palette import COLOURS
from data_pipeline.world.story.words import CHINESE

_SIGN = re.compile(r"[A-Z0-9][A-Z0-9:. ]*")


class Untranslatable(Exception):
    """A text that is in another language than the dialogue, and not in the words of the world."""


@lru_cache(maxsize=65536)
def to_chinese(text: str) -> str:
    """A value, a name or an event of the world in Chinese; what is on a sign stays, and so does what is Chinese already.

    Raises:
        Untranslatable: it is something else.
    """
    translated = _plain(text) or _noun(text) or _count(text) or _list(text) or _action(text) or _event(text)
    if translated is None:
        raise Untranslatable(text)
    return translated


def _plain(text: str) -> str | None:
    if _SIGN.fullmatch(text) or not any(c.isascii() and c.isalpha() for c in text):
        return text
    if text == "nothing":
        return chinese.NOTHING
    return _colour(text) or chinese.CELLS.get(text) or CHINESE.get(text)


def _colour(text: str) -> str | None:
    return chinese.COLOURS[text] + "色" if text in COLOURS else None


def _noun(text: str) -> str | None:
    """`red ball`, `ball`, `cat`."""
    colour, _, kind = text.rpartition(" ")
    name = chinese.KINDS.get(kind) or CHINESE.get(kind)
    if name is None or (colour and colour not in COLOURS):
        return None
    # A colour stands right before a name of one character, and takes `色` before a longer one.
    between = "色" if len(name) > 1 else ""
    return chinese.COLOURS[colour] + between + name if colour else name


def _count(text: str) -> str | None:
    """`two objects`."""
    number, _, kind = text.partition(" ")
    kind = kind.removesuffix("s")
    return chinese.COUNTS[number] + chinese.KINDS[kind] if number in chinese.COUNTS and kind in chinese.KINDS else None


def _list(text: str) -> str | None:
    """`red ball, cat and blue flag`."""
    parts = [_noun(part) for part in re.split(r", | and ", text)]
    named = [part for part in parts if part]
    if len(parts) < 2 or len(named) < len(parts):
        return None
    return "、".join(named[:-1]) + "和" + named[-1]


def _event(text: str) -> str | None:
    happening = take_apart(text)
    if happening is None:
        return None
    if happening.whole:
        return CHINESE.get(text) or f"{CHINESE[happening.verb]}{happening.rest}"
    subject = _noun(happening.subject) if happening.subject else "有东西"
    rest = (_colour(happening.rest) or _noun(happening.rest)) if happening.rest else ""
    verb = chinese.VERBS.get(happening.verb) or CHINESE[happening.verb]
    return None if subject is None or rest is None else subject + verb + rest


def _action(text: str) -> str | None:
    """`carries red ball`."""
    verb, _, thing = text.partition(" ")
    rest = _noun(thing)
    return CHINESE[verb] + rest if verb in CHINESE and rest else None
