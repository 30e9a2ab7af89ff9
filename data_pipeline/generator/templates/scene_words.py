"""The words in which the world tells its timelines: events taken apart, so that they can be put into other words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from data_pipeline.world.palette import COLOURS, KINDS
from data_pipeline.world.story.words import FIGURES, PHOTOS

THINGS = (*KINDS, *FIGURES, *PHOTOS)
PARTICIPLES = {
    "appears": "appeared",
    "leaves": "left",
    "bounces": "bounced",
    "spins": "spun",
    "blinks": "blinked",
    "grows": "grown",
    "shrinks": "shrunk",
    "goes behind the wall": "gone behind the wall",
    "comes out": "come out",
    "enters the box": "entered the box",
    "turns": "turned",
    "hits": "hit",
    "circles": "circled",
    "carries": "carried",
    "the scene changes": "the scene changed",
    "it gets dark": "it got dark",
    "it gets light": "it got light",
    "the camera shakes": "the camera shaken",
    "the camera zooms": "the camera zoomed",
    "the camera moves": "the camera moved",
    "the sign changes to": "the sign changed to",
}
"""What the world can do, and how to ask whether it has."""
TRANSITIVE = ("hits", "circles", "carries")
_NOUN = f"(?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(THINGS)})"
_ALONE = "appears|leaves|bounces|spins|blinks|grows|shrinks|goes behind the wall|comes out|enters the box"
_EVENT = re.compile(
    rf"(?:(?P<subject>{_NOUN}) )?(?:(?P<alone>{_ALONE})|(?P<turns>turns) (?P<colour>{'|'.join(COLOURS)})"
    rf"|(?P<verb>{'|'.join(TRANSITIVE)}) (?P<object>{_NOUN}))"
)
_SCENE = re.compile(
    r"(?P<verb>the scene changes|it gets (?:dark|light)|the camera shakes)"
    r"|(?P<camera>the camera zooms|the camera moves) (?P<way>\w+)|(?P<sign>the sign changes to) (?P<text>.+)"
)


@dataclass(frozen=True)
class Happening:
    """`red ball hits blue flag`: subject, verb, and object or colour; the subject is empty where anything counts."""

    subject: str
    verb: str
    """A key of `PARTICIPLES`."""
    rest: str = ""
    whole: bool = False
    """Whether the verb is a clause of its own, such as `it gets dark`."""


@lru_cache(maxsize=16384)
def take_apart(text: str) -> Happening | None:
    """An event of the world in its parts; None for any other text."""
    found = _EVENT.fullmatch(text)
    if found is not None:
        verb = found["alone"] or found["turns"] or found["verb"]
        return Happening(found["subject"] or "", verb, found["colour"] or found["object"] or "")
    scene = _SCENE.fullmatch(text)
    if scene is None:
        return None
    verb = scene["verb"] or scene["camera"] or scene["sign"]
    return Happening("", verb, scene["way"] or scene["text"] or "", whole=True)


def is_noun(text: str) -> bool:
    """Whether a text names one thing of the world, such as `red ball` or `cat`."""
    return re.fullmatch(_NOUN, text) is not None


def with_article(noun: str) -> str:
    """`a red ball`, `an arrow`."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def clause(text: str, perfect: bool = False) -> str:
    """`a red ball appears`, `something leaves`, `it gets dark`; or `a red ball appeared`, behind `has`.

    Texts that the world does not know stay.
    """
    happening = take_apart(text)
    if happening is None:
        return text
    verb = PARTICIPLES[happening.verb] if perfect else happening.verb
    rest = with_article(happening.rest) if happening.verb in TRANSITIVE else happening.rest
    subject = "" if happening.whole else with_article(happening.subject) if happening.subject else "something"
    return " ".join(part for part in (subject, verb, rest) if part)
