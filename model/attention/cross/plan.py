"""What rows see, and what each backend derives from it: worked out once a micro-batch, used by every layer and pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch

from model.attention.cross.blocks import CrossBlock, Ints, cut_cross_blocks

T = TypeVar("T")


@dataclass(frozen=True)
class CrossPlan:
    """Row t sees the frames [begin[t], end[t]); an empty range means that it attends to nothing."""

    begin: Ints
    """[T], host."""
    end: Ints
    """[T], host."""
    bounds: Ints
    """Rows at which a new sample begins, rising from 0 to T."""
    num_frames: int
    """Frames of the keys and values handed to the layers; ranges stay inside."""
    tokens_per_frame: int
    device: torch.device
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What the backends made of it, by name."""

    @property
    def num_rows(self) -> int:
        return len(self.begin)

    @property
    def num_keys(self) -> int:
        return self.num_frames * self.tokens_per_frame

    @cached_property
    def attends(self) -> bool:
        """Whether any row sees a frame."""
        return bool((self.end > self.begin).any())

    @cached_property
    def pairs(self) -> int:
        """Pairs of a row and a key that it sees."""
        return int((self.end - self.begin).clip(min=0).sum()) * self.tokens_per_frame

    @cached_property
    def blocks(self) -> list[CrossBlock]:
        """Blocks of rows, each of one sample."""
        return cut_cross_blocks(self.begin, self.end, self.bounds, tokens_per_frame=self.tokens_per_frame, device=self.device)

    def derive(self, key: Any, make: Callable[[CrossPlan], T]) -> T:
        """`make(self)`, kept under `key`."""
        if key not in self.cache:
            self.cache[key] = make(self)
        made: T = self.cache[key]
        return made
