"""The words in which the world tells its timelines: events taken apart, so that they can be put into other words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
PLAIN_VERBS = ("appears", "leaves", "bounces")
INFINITIVES = {"appears": "appear", "leaves": "leave", "bounces": "bounce", "turns": "turn", "hits": "hit"}
PARTICIPLES = {"appears": "appeared", "leaves": "left", "bounces": "bounced", "turns": "turned", "hits": "hit"}
VERBS = tuple(INFINITIVES)


@dataclass(frozen=True)
class Happening:
    """`red ball hits blue flag`: subject, verb, and object or colour; the subject is empty where anything counts."""

    subject: str
    verb: str
    rest: str = ""


@lru_cache(maxsize=4096)
def take_apart(text: str) -> Happening | None:
    """An event of the world in its parts; None for any other text."""
    words = text.split(" ")
    for index, word in enumerate(words):
        if word in VERBS and index <= 2:
            rest = words[index + 1 :]
            noun = words[:index]
            if len(noun) == 2 and noun[0] not in COLOURS:
                return None
            if word in PLAIN_VERBS:
                return None if rest else Happening(" ".join(noun), word)
            return Happening(" ".join(noun), word, " ".join(rest)) if 1 <= len(rest) <= 2 else None
    return None


def with_article(noun: str) -> str:
    """`a red ball`, `something`."""
    return f"a {noun}" if noun else "something"
