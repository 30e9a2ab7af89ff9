"""What the behaviours need of a language: words for requests and for answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol


class Wording(Protocol):
    """Phrases of one language; texts and values of a timeline come in, in the timeline's words, and leave in the dialogue's."""

    @property
    def language(self) -> str:
        """en | zh, of the dialogue."""

    def request(self, rng: random.Random, task: str, subject: str = "", target: str = "") -> str:
        """One of the wordings of a request; no wording serves two tasks."""

    def state(self, value: str) -> str:
        """`red.`"""

    def now(self, value: str) -> str:
        """`now blue.`"""

    def events(self, texts: Sequence[str]) -> str:
        """`red ball appears and blue ball leaves.`"""

    def happened(self, texts: Sequence[str]) -> str:
        """`yes, red ball appears.`"""

    def not_yet(self) -> str:
        """`not yet.`"""

    def nothing(self) -> str:
        """`nothing.`"""

    def number(self, count: int) -> str:
        """`two.`"""

    def given(self, answer: str) -> str:
        """An annotated answer as a sentence."""
