"""From what sessions want to feed to the integers of a step: which row stands where, writes where, and sees how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from inference.model.rows import FIELDS, PagedGroup, RowGroup, StepRows

NO_SOURCE = -1
"""A row whose token the host knows."""


@dataclass
class StepPlan:
    """One step over the rows of one or more sessions, N in all, as lists of host integers."""

    fields: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in FIELDS})
    """[N] each; see `StepRows`."""
    last: list[int] = field(default_factory=list)
    """Row of each group's last token."""
    self_groups: list[PagedGroup] = field(default_factory=list)
    cross_groups: list[PagedGroup] = field(default_factory=list)
    frame_pages: list[int] = field(default_factory=list)
    """[f] page of each new frame, session by session."""
    frame_positions: list[int] = field(default_factory=list)
    """[f] rotary positions of the new frames."""

    @property
    def rows(self) -> int:
        """N"""
        return len(self.fields["token"])

    @property
    def attends(self) -> bool:
        """Whether any row sees a frame."""
        return any(self.fields["cross_limit"])

    def pack(self, out: npt.NDArray[np.int32]) -> None:
        """Write the fields into int32 [len(FIELDS), >= N]; columns behind the rows stay as they are."""
        for i, name in enumerate(FIELDS):
            out[i, : self.rows] = self.fields[name]

    def tensors(self, device: torch.device) -> StepRows:
        """The step's rows on a device, for one eager run."""
        packed = np.empty((len(FIELDS), self.rows), dtype=np.int32)
        self.pack(packed)
        fields = torch.from_numpy(packed).to(device, non_blocking=True)
        return StepRows.of(
            fields, _tables(self.self_groups, device), _tables(self.cross_groups, device), self.self_groups, self.cross_groups
        )


def _tables(groups: Sequence[PagedGroup], device: torch.device) -> torch.Tensor:
    """int32 [S, W], padded with the scratch page 0."""
    width = max(1, *(len(group.table) for group in groups))
    tables = np.zeros((len(groups), width), dtype=np.int32)
    for i, group in enumerate(groups):
        tables[i, : len(group.table)] = group.table
    return torch.from_numpy(tables).to(device, non_blocking=True)


def plan_step(
    groups: Sequence[RowGroup],
    *,
    page_rows: int,
    attend_all: bool,
    always_rotate: bool,
    sessions: Sequence[int] | None = None,
    sources: Mapping[int, int] | None = None,
) -> StepPlan:
    """Lay out a step. Each session's cache must have room reserved.

    Args:
        groups: new rows, one group per session.
        page_rows: key rows of a page of the cross pool (P).
        attend_all: rows without a visible frame attend to every frame of their session, as the reference lets them.
        always_rotate: False leaves the cross-attention queries of groups without new frames unrotated.
        sessions: each group's row in the tables of pages; None counts them from 0.
        sources: group number -> session row whose last sampled token, known to the device alone, is that group's only one.
    """
    plan = StepPlan()
    for number, group in enumerate(groups):
        _add(plan, group, number if sessions is None else sessions[number], page_rows, attend_all, always_rotate)
        if sources is not None and number in sources:
            plan.fields["source"][plan.last[-1]] = sources[number]
    return plan


def _add(plan: StepPlan, group: RowGroup, session: int, page_rows: int, attend_all: bool, always_rotate: bool) -> None:
    cache, skip, offset, add = group.cache, group.written, plan.rows, plan.fields
    count = len(group.tokens) - skip
    begin, total = cache.length + skip, cache.frames + group.new_frames
    positions = range(cache.next_position + skip, cache.next_position + skip + count)
    rotated = always_rotate or group.new_frames > 0
    visible = group.visible[skip:]
    # A row that sees no frame of its own right: the reference lets it attend to all, without the MLP behind.
    seen = [frames or (total if attend_all else 0) for frames in visible]
    self_limits = list(range(begin + 1, begin + count + 1))
    cross_limits = [frames * page_rows for frames in seen]
    add["token"] += group.tokens[skip:]
    add["source"] += [NO_SOURCE] * count
    add["position"] += positions
    add["query_position"] += positions if rotated else [0] * count
    add["slot"] += cache.row_slots(skip + count)[skip:]
    add["session"] += [session] * count
    add["self_limit"] += self_limits
    add["cross_limit"] += cross_limits
    add["sees"] += [int(frames > 0) for frames in visible]
    plan.last.append(offset + count - 1)
    plan.self_groups.append(PagedGroup(offset, offset + count, cache.self_table, self_limits))
    plan.cross_groups.append(PagedGroup(offset, offset + count, cache.cross_table, cross_limits))
    plan.frame_pages += cache.cross_table[cache.frames : total]
    plan.frame_positions += group.frame_positions
