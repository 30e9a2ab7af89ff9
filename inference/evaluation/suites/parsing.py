"""What a reply says: the option, yes or no, the number. Official parsers are lenient or odd in their own ways; these are ours."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference.evaluation.scorers.questions import normalise

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_ALONE = re.compile(r"[\s(\[{\"'*]*([A-Za-z])[\s)\]}\"'*.:,;!]*")
_MARKED = re.compile(r"\s*(?:[(\[*\"']+([A-Z])[.:]?[)\]*\"']+|([A-Z])\s*[.):,;]|([A-Z])\s*\n)")
_STATED = re.compile(
    r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*[(\[*\"']*([A-Z])(?![\w'])(?:[)\]*\"']*\s+(?:or|and)\s+([A-Z])(?![\w']))?",
    re.IGNORECASE,
)
_ANOTHER = re.compile(r"(?<![\w'])([A-Z])(?=\s*(?:[).:,;\]*\"'/]|$)|\s+(?:or|and)\b)")
"""A capital that a mark, the end, "or" or "and" follows: in "A, B" a second letter, in "B. A dog" none."""
_YES_NO = re.compile(r"\W*(yes|no|y|n)(?![\w'])", re.IGNORECASE)
_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
          "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]  # fmt: skip
_NUMBER_WORDS = {word: number for number, word in enumerate(_WORDS)}


def lettered(options: Sequence[str]) -> list[str]:
    """Options with their letters, `A. text`; as they are where the first one has its letter already."""
    if options and re.match(r"\s*\(?A[.):]", options[0]):
        return list(options)
    return [f"{LETTERS[place]}. {option}" for place, option in enumerate(options)]


def bare(option: str) -> str:
    """An option's text without its letter."""
    return re.sub(r"^\s*\(?[A-Z][.):]\s*", "", option)


def strict_choice(reply: str, options: Sequence[str]) -> str | None:
    """The letter that a reply chooses, None where it chooses none or several.

    A letter counts alone (`B`, `(b)`), as a capital before a mark (`B. A cat`), or as one behind "answer", "option" or "choice";
    so "A cat sits there" is no choice of A. A second letter in that way, such as in "A, B" or "A: no. B: yes", makes it none,
    unless what follows the first is that option's text. Without any of these the reply must be the text of exactly one option,
    case and punctuation apart.
    """
    known = LETTERS[: len(options)]
    alone = _ALONE.fullmatch(reply)
    if alone:
        return alone[1].upper() if alone[1].upper() in known else None
    found = {letter for letter in _stated(reply, options) if letter in known}
    if not found:
        said = normalise(reply)
        found = {letter for letter, option in zip(known, options, strict=False) if said and said == normalise(bare(option))}
    return found.pop() if len(found) == 1 else None


def _stated(reply: str, options: Sequence[str]) -> list[str]:
    # Letters are capitals: "answer is a cat" states nothing.
    stated = [found for found in _STATED.finditer(reply) if found[1].isupper()]
    letters = [letter for found in stated for letter in found.groups() if letter and letter.isupper()]
    begins = _MARKED.match(reply)
    firsts = [*([begins] if begins else []), *stated]
    letters += [letter for letter in begins.groups() if letter] if begins else []
    for first in firsts:
        rest, place = reply[first.end() :], LETTERS.index(next(letter for letter in first.groups() if letter))
        if place >= len(options) or normalise(rest) != normalise(bare(options[place])):
            letters += _ANOTHER.findall(rest)
    return letters


def strict_yes_no(reply: str) -> bool | None:
    """True or False by the reply's first word (yes, no, y, n in any case); None where it is another one."""
    found = _YES_NO.match(reply)
    return None if found is None else found[1].lower() in ("yes", "y")


def strict_number(reply: str) -> int | None:
    """The number that a reply names, in digits or as a word up to twenty; None where it names none, or different ones."""
    digits = {int(number) for number in re.findall(r"(?<![\w.])\d+(?!\w|\.\d)", reply)}
    words = {_NUMBER_WORDS[word] for word in normalise(reply).split() if word in _NUMBER_WORDS}
    # A word beside digits is mostly no number: "one of the 3".
    found = digits or words
    return found.pop() if len(found) == 1 else None
