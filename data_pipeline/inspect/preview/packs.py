"""How samples share packs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.packing.plan import PlanRules
from data_pipeline.packing.select import select_packs


@dataclass
class Segment:
    """A sample's part of a pack."""

    key: str
    rows: int
    frames: int


@dataclass
class PackView:
    """One pack."""

    segments: list[Segment]
    free_rows: int
    """Padding."""
    free_frames: int


def pack_views(planned: Sequence[Segment], rules: PlanRules, samples_per_pack: int | None) -> list[PackView]:
    """The packs that the loader's rule forms of these samples."""
    sizes = [(s.rows, s.frames) for s in planned]
    views = []
    for pack in select_packs(sizes, rules.sequence_length, rules.max_frames, samples_per_pack):
        members = [planned[i] for i in pack]
        rows, frames = sum(s.rows for s in members), sum(s.frames for s in members)
        views.append(PackView(members, rules.sequence_length - rows, rules.max_frames - frames))
    return views
