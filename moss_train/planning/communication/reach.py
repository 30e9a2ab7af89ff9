"""How far gradients get inside a decoder layer: what needs none has no backward calls."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.planning.communication.rank import Rank


@dataclass(frozen=True)
class Reach:
    """Which values of a layer ask for a gradient."""

    rows: bool
    """What goes into the attention's first product."""
    queries: bool
    mixed: bool
    """What attention gives to its second product."""
    mlp_rows: bool
    """What goes into the MLP."""
    mlp_inner: bool
    """What goes into its second product."""
    output: bool

    @classmethod
    def of(cls, rank: Rank, cross: bool, needed: bool) -> Reach:
        """Of a layer with frames to look at, if it is a cross layer.

        Args:
            needed: whether the rows that come in ask for a gradient.
        """
        part = "cross_layers" if cross else "text"
        trains, adapted = part in rank.gradients.parts, rank.adapted(part)
        norms, gates = trains or rank.trains_also("norms", part), trains or rank.trains_also("gates", part)
        rows = needed or norms
        queries = rows or trains or (cross and norms) or bool(adapted & {"linear_qkv", "linear_q"})
        mixed = queries or (cross and (rank.gradients.features or norms or "linear_kv" in adapted))
        attended = mixed or trains or "linear_proj" in adapted or (cross and gates)
        mlp_rows = needed or attended or norms
        inner = mlp_rows or trains or "linear_fc1" in adapted
        return cls(rows, queries, mixed, mlp_rows, inner, inner or "linear_fc2" in adapted)
