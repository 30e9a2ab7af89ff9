"""What can be said of a frame, an event or a whole story, in four registers: terse, plain, chatty and dense."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline.timeline.timeline import Segment
from data_pipeline.world.story.record import Record
from data_pipeline.world.story.truth import place
from data_pipeline.world.story.words import count_words, listed
from model.errors import InputError

REGISTERS = ("terse", "plain", "chatty", "dense")
TOLD = 0.5
"""Salience from which on an event is part of a caption."""


def caption_frame(record: Record, frame: int, register: str) -> str:
    """A caption of one frame.

    Raises:
        InputError: an unknown register.
    """
    _check(register)
    shown = [n for n in range(len(record.kinds)) if record.visible[frame, n]]
    names = [record.name(frame, n) for n in shown]
    if register == "terse":
        return (listed(names) or "nothing") + "."
    placed = [f"{_a(name)} at the {place(record, frame, n)}" for name, n in zip(names, shown, strict=True)]
    if register == "plain":
        return f"There is {listed(placed)}." if placed else "There is nothing to be seen."
    sign = record.sign[frame] if record.sign else ""
    if register == "chatty":
        what = f"I can see {listed([_a(name) for name in names])} here" if names else "Nothing here so far"
        return what + (f", and the sign says {sign}." if sign else ".")
    parts = [f"{count_words(len(shown)).capitalize()}."]
    parts += [
        f"{_a(name).capitalize()} is at the {place(record, frame, n)}{_covered(record, frame, n)}."
        for name, n in zip(names, shown, strict=True)
    ]
    pairs = [(a, b) for a in shown for b in shown if record.x[frame, b] - record.x[frame, a] > record.size / 6]
    parts += [f"The {record.name(frame, a)} is left of the {record.name(frame, b)}." for a, b in pairs[:3]]
    return " ".join([*parts, f"The sign says {sign}."] if sign else parts)


def caption_event(segment: Segment, register: str) -> str:
    """A sentence about an event or an action.

    Raises:
        InputError: an unknown register.
    """
    _check(register)
    text = segment.text
    if register == "terse":
        return text + "."
    if register == "plain":
        return _capital(text) + "."
    if register == "chatty":
        return f"Look, {text}!"
    return f"From {segment.begin:.1f} s to {segment.end or segment.begin:.1f} s {text}."


def caption_story(record: Record, told: Sequence[Segment], register: str) -> str:
    """A caption of the whole story, in order of time.

    Raises:
        InputError: an unknown register.
    """
    _check(register)
    events = [s for s in told if s.level in ("event", "action") and s.salience >= TOLD]
    texts = [s.text for s in events]
    if register == "terse":
        return "; ".join(texts) + "." if texts else "nothing happens."
    if not texts:
        return caption_frame(record, 0, register) + " Nothing happens."
    if register == "plain":
        return " ".join(_capital(text) + "." for text in texts)
    if register == "chatty":
        return "So, first " + ", then ".join(texts) + "."
    first, last = caption_frame(record, 0, "dense"), caption_frame(record, len(record.times) - 1, "dense")
    return f"At first: {first} {' '.join(caption_event(s, 'dense') for s in events)} At the end: {last}"


def _check(register: str) -> None:
    if register not in REGISTERS:
        raise InputError(f"register of a caption is {register!r}; use one of {', '.join(REGISTERS)}")


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _covered(record: Record, frame: int, actor: int) -> str:
    return ", partly hidden" if record.share[frame, actor] < 0.8 else ""
