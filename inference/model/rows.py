"""What a step consists of: rows, a few integers each. Layers see nothing else of a session, so the same arithmetic runs eagerly
and, on buffers that stay where they are, inside a CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from inference.cache.pool import KVPool
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
    written: int = 0
    """So many of the first rows were computed by an earlier step, at their places: they are counted, not computed again."""

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


FIELDS = ("token", "source", "position", "query_position", "slot", "session", "self_limit", "cross_limit", "sees")
"""The integers of a row, in the order in which they are packed."""


@dataclass
class StepRows:
    """N rows of one or more sessions."""

    tokens: torch.Tensor
    """int32 [N] ids; ignored where `sources` is not negative."""
    sources: torch.Tensor
    """int32 [N] session whose last sampled token this row feeds; -1: the token is in `tokens`."""
    positions: torch.Tensor
    """int32 [N] rotary positions in the self layers."""
    query_positions: torch.Tensor
    """int32 [N] rotary positions of the cross layers' queries; rotating by position 0 changes nothing."""
    slots: torch.Tensor
    """int64 [N] where each row's key and value go: page * page_rows + row in the self pool."""
    sees: torch.Tensor
    """bool [N] rows that see a frame of their own right: only they pass the MLPs of the cross layers."""
    self_view: PagedView
    cross_view: PagedView

    @classmethod
    def of(
        cls,
        fields: torch.Tensor,
        self_tables: torch.Tensor,
        cross_tables: torch.Tensor,
        self_groups: list[PagedGroup] | None = None,
        cross_groups: list[PagedGroup] | None = None,
    ) -> StepRows:
        """From int32 [len(FIELDS), N] and the sessions' tables [S, W]; all but `slots` and `sees` are views of these."""
        named = dict(zip(FIELDS, fields.unbind(), strict=True))
        return cls(
            tokens=named["token"],
            sources=named["source"],
            positions=named["position"],
            query_positions=named["query_position"],
            slots=named["slot"].long(),
            sees=named["sees"] != 0,
            self_view=PagedView(self_tables, named["session"], named["self_limit"], self_groups),
            cross_view=PagedView(cross_tables, named["session"], named["cross_limit"], cross_groups),
        )


@dataclass
class FrameRows:
    """f new frames on their way into the cross pool."""

    cos: torch.Tensor
    sin: torch.Tensor
    """[f, head_dim] of the frames' positions."""
    slots: torch.Tensor
    """int64 [f * P] where their keys and values go, frame by frame."""


@dataclass
class StepTensors:
    """What all decoder layers of one step share."""

    rows: StepRows
    cos: torch.Tensor
    sin: torch.Tensor
    """[N, head_dim] of the rows' positions."""
    query_cos: torch.Tensor
    query_sin: torch.Tensor
    """[N, head_dim] for the queries of the cross layers."""
    self_pool: KVPool
    cross_pool: KVPool
    attends: bool = True
    """False where the host knows that no row sees a frame: the cross layers then change nothing and are skipped."""
    mlp_gates: torch.Tensor | None = None
    """[cross layers, N] each cross layer's gate, 0 for rows that see no frame; None: every layer makes its own."""
