"""What a step consists of: rows, a few integers each. Layers see nothing else of a session, so the same arithmetic runs eagerly
and, on buffers that stay where they are, inside a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from inference.cache.session_cache import SessionCache


@dataclass
class RowGroup:
    """New rows of one session, and the frames that arrive with them."""

    cache: SessionCache
    """The rows before; its counts grow when the step is done."""
    tokens: Sequence[int]
    visible: Sequence[int]
    """Frames of the session's table that each row sees; never shrinks."""
    frame_states: torch.Tensor | None = None
    """[f, P, H] of the new frames."""
    frame_positions: Sequence[int] = ()
    """Rotary position of each new frame: that of its image token."""
    positions: Sequence[int] | None = None
    """Rotary position of each row; None: they follow the session's last."""

    @property
    def new_frames(self) -> int:
        return 0 if self.frame_states is None else int(self.frame_states.shape[0])


class PagedGroup(NamedTuple):
    """Consecutive rows of one session, known to the host."""

    begin: int
    end: int
    """Rows begin .. end - 1 of the step."""
    table: Sequence[int]
    """Pages of the session, in order; at least as many as the largest limit needs."""
    limits: Sequence[int]
    """Of each row."""


@dataclass
class PagedView:
    """Which keys of a pool each row sees: row n sees key rows 0 .. limits[n] - 1 of the pages tables[session[n]].

    Key row i of a session is row i % page_rows of page tables[session, i // page_rows]. A limit of 0 sees nothing and
    gives 0.
    """

    tables: torch.Tensor
    """int32 [S, W] page numbers; entries behind a session's last page are not read."""
    session: torch.Tensor
    """int32 [N] row of `tables`."""
    limits: torch.Tensor
    """int32 [N] key rows that are seen."""
    groups: list[PagedGroup] | None = None
    """The same on the host, in order of rows; None where only the device knows (inside a graph)."""

    def host_groups(self) -> list[PagedGroup]:
        """`groups`, read back from the tensors where the host does not have them (waits for the device)."""
        if self.groups is not None:
            return self.groups
        session, limits = self.session.tolist(), self.limits.tolist()
        found: list[PagedGroup] = []
        begin = 0
        for row in range(1, len(session) + 1):
            if row == len(session) or session[row] != session[begin]:
                found.append(PagedGroup(begin, row, self.tables[session[begin]].tolist(), limits[begin:row]))
                begin = row
        return found
