"""Which integer seeds a story of a split has: disjoint ranges, apart from those of the other tasks of the world."""

from __future__ import annotations

from data_pipeline.world.seeds import SPLIT_SPAN, SPLITS, WORLDS
from model.errors import InputError

STORY_BASE = len(SPLITS) * SPLIT_SPAN
"""The first seed of stories: behind all seeds of `data_pipeline.world.seeds`, which stay as they are."""
STORY_SPAN = SPLIT_SPAN // WORLDS
"""Stories that one world of a split may draw, at any level."""


def first_story_seed(split: str, world: int = 0) -> int:
    """The first of the `STORY_SPAN` seeds that belong to the stories of a split in world `world`.

    Raises:
        InputError: unknown split, or a world outside 0..9.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
    if not 0 <= world < WORLDS:
        raise InputError(f"world is {world}; it must lie within 0..{WORLDS - 1}")
    return STORY_BASE + SPLITS.index(split) * SPLIT_SPAN + world * STORY_SPAN
