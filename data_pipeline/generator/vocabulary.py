"""Texts from which a small tokenizer learns every word of the world and of the templates as one token."""

from __future__ import annotations

from data_pipeline.assets import real
from data_pipeline.generator.templates import vocabulary
from data_pipeline.world.tasks import text

STORIES = 1000
REPEATS = 20
"""Of the templates' texts: often enough for a rare word to win its merges against the syllables of frequent ones."""


def world_texts(language: str = "en") -> list[str]:
    """What the tasks of `moss data world` say without its real media, the chat template's headers, and the templates' wordings.

    Raises:
        InputError: there are no templates for the language.
    """
    left_out = set(real.texts())
    told = [line for line in text.corpus(0, STORIES) if line not in left_out]
    return told + vocabulary.corpus(language) * REPEATS
