"""Frames grow coarser with age: whole, then pooled two by two, then the class token, then gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.cache.frame_page import FramePage, PageKind
from inference.cache.patch_grid import pooled_tokens
from inference.cache.policies.operations import DropFrames, KeepClassTokens, KeepsNothingBack, Operation, PoolFrames
from model.errors import InputError


@dataclass(frozen=True)
class PooledAged(KeepsNothingBack):
    """The newest `window` frames whole, then `batches` batches pooled, then `class_pages` pages of class tokens.

    A batch is as many frames as a frame has tokens (101), so the whole frames are between `window` and `window` + 100.
    """

    window: int
    batches: int = 4
    class_pages: int = 32
    needs_raw_keys = True

    def __post_init__(self) -> None:
        for name, value, least in (
            ("window", self.window, 1),
            ("batches", self.batches, 1),
            ("class_pages", self.class_pages, 0),
        ):
            if value < least:
                raise InputError(f"{name} of the policy pooled is {value}; it must be at least {least}")

    def decide(self, pages: Sequence[FramePage], tokens_per_frame: int) -> Operation | None:
        """Pages stand in the order of age: class tokens, pooled, whole."""
        kinds = [page.kind for page in pages]
        old, pooled, whole = (kinds.count(kind) for kind in (PageKind.CLASS, PageKind.POOLED, PageKind.FRAME))
        if whole >= self.window + tokens_per_frame:
            return PoolFrames(old + pooled)
        if pooled > self.batches * pooled_tokens(tokens_per_frame):
            return KeepClassTokens(old)
        if old > self.class_pages:
            return DropFrames(0, old - self.class_pages)
        return None

    def most_pages(self, tokens_per_frame: int, step_frames: int) -> int | None:
        """At the fullest moment: a batch about to be pooled, one batch too many, one page of class tokens too many."""
        small = pooled_tokens(tokens_per_frame)
        whole = self.window + tokens_per_frame - 1 + step_frames
        return whole + (self.batches + 1) * small + self.class_pages + 1

    def spell(self) -> str:
        """As it is written on a command line."""
        return f"pooled:{self.window}:{self.batches}:{self.class_pages}"
