"""The phrase tables as `Wording`: requests and answers in one language."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import ModuleType

from data_pipeline.generator.templates import chinese, english
from data_pipeline.generator.templates.clock import spoken_clock
from data_pipeline.generator.templates.scene_words import clause, take_apart
from data_pipeline.generator.templates.translate import Untranslatable, to_chinese
from model.errors import InputError

TABLES: dict[str, ModuleType] = {"en": english, "zh": chinese}


class Phrases:
    """`Wording` for dialogues in one language on timelines in one language."""

    def __init__(self, language: str, source: str) -> None:
        """
        Args:
            language: en | zh, of the dialogue.
            source: en | zh, of the timeline.

        Raises:
            InputError: there is no table for the language.
        """
        if language not in TABLES:
            raise InputError(f"language is {language!r}; there are templates for {', '.join(TABLES)}")
        self.language = language
        self.source = source
        self._table = TABLES[language]

    def translate(self, text: str) -> str:
        """A text of the timeline in the dialogue's language.

        Raises:
            Untranslatable: the timeline is in another language, and the text not in the words of the world.
        """
        if self.source != self.language:
            if self.language != "zh":
                raise Untranslatable(text)
            text = to_chinese(text)
        return spoken_clock(text, self.language)

    def requests(self, task: str, subject: str = "", target: str = "") -> tuple[str, ...]:
        """All wordings of a request."""
        table = self._table.REQUESTS[task]
        prefix, _, name = subject.partition(":")
        scene = take_apart(target) if target else None
        if prefix in table:
            chosen = table[prefix]
        elif scene is not None and "scene" in table:
            chosen = table["scene"]
        else:
            chosen = table["*bare"] if prefix and not name and "*bare" in table else table["*"]
        words = {
            "name": self.name(name) if name else "",
            "prefix": self.prefix(prefix),
            "clause": self._clause(target) if scene else "",
            "perfect": self._clause(target, perfect=True) if scene else "",
            "text": self.translate(target).rstrip(".。") if target else "",
        }
        if task == "keep":
            asked = self.requests("ask", subject) if subject else self.requests("current")
            return tuple(w.format(ask=ask) for w in chosen for ask in asked)
        return tuple(w.format(**words) for w in chosen)

    def request(self, rng: random.Random, task: str, subject: str = "", target: str = "") -> str:
        """One of them."""
        return rng.choice(self.requests(task, subject, target))

    def name(self, name: str) -> str:
        """What a subject is about, such as `ball`."""
        return self.translate(name.replace("_", " "))

    def prefix(self, prefix: str) -> str:
        """What of it, such as `colour`."""
        if self.language == "zh":
            return chinese.PREFIXES.get(prefix) or (self.translate(prefix) if prefix else "")
        return prefix.replace("_", " ")

    def state(self, value: str) -> str:
        """`red.`"""
        return self._sentence(self._value(value))

    def now(self, value: str) -> str:
        """`now blue.`"""
        return self._sentence(self._table.NOW.format(value=self._value(value)))

    def events(self, texts: Sequence[str]) -> str:
        """`red ball appears and blue ball leaves.`"""
        return self._sentence(self._joined(texts))

    def happened(self, texts: Sequence[str]) -> str:
        """`yes, red ball appears.`"""
        return self._sentence(self._table.YES.format(text=_inside(self._joined(texts))))

    def not_yet(self) -> str:
        """`not yet.`"""
        return self._sentence(self._table.NOT_YET)

    def nothing(self) -> str:
        """`nothing.`"""
        return self._sentence(self._table.NOTHING)

    def number(self, count: int) -> str:
        """`two.`; numbers above ten in figures."""
        numbers = self._table.NUMBERS
        return self._sentence(numbers[count] if count < len(numbers) else str(count))

    def given(self, answer: str) -> str:
        """An annotated answer as a sentence."""
        return self._sentence(self.translate(answer))

    def _clause(self, target: str, perfect: bool = False) -> str:
        """An event of the world inside a sentence."""
        return self.translate(target) if self.language == "zh" else spoken_clock(clause(target, perfect), "en")

    def _value(self, value: str) -> str:
        """A value; in Chinese one of Latin letters alone, which only a sign can have, as what is written there."""
        said = self.translate(value)
        latin = self.language == "zh" and any(c.isascii() and c.isalpha() for c in said)
        return chinese.WRITTEN + said if latin and said.isascii() else said

    def _joined(self, texts: Sequence[str]) -> str:
        translated = [self.translate(text.rstrip()).rstrip(".。") for text in dict.fromkeys(texts)]
        return str(self._table.AND.join(translated))

    def _sentence(self, text: str) -> str:
        return text if text.rstrip().endswith((".", "。", "!", "?", "！", "？")) else text + self._table.STOP


def _inside(text: str) -> str:
    """A text inside a sentence: `She cuts` is `she cuts`; names of several capitals, `I` and words with capitals behind stay."""
    first = text.split(maxsplit=1)[0] if text.split() else ""
    ordinary = first[1:].islower() or first in ("A",)
    return text[:1].lower() + text[1:] if ordinary and first[:2] not in ("I'", "I’") else text
