"""The attention cores as megatron-core modules, and the parameters that carry the plan to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from model.attention.context import context_cross_attention, context_self_attention
from model.attention.cross.attention import cross_attention
from model.attention.functional import self_attention
from model.attention.plan import RowPlan
from model.rows import PackedRows
from model.text.rope import apply_rope


@dataclass
class PackedRowParams(PackedSeqParams):
    """megatron-core's packing parameters and our plan: they reach every layer, recomputed ones too, by closure."""

    plan: RowPlan | None = None

    @classmethod
    def of(cls, rows: PackedRows, plan: RowPlan) -> PackedRowParams:
        """Parameters of a plan; `max_seqlen` is the longest sample, padding behind the last one being a sample too.

        It is the length of the pack only where the pack is one sample: at that length megatron-core's own rotary embedding
        turns rows by their place in the pack, and kernels plan for rows that no sample has. Bounds and longest sample are of
        the whole micro-batch under context parallelism too; Transformer Engine divides them by the ranks itself.
        """
        longest = max(b - a for a, b in plan.segments)
        return cls(
            qkv_format="thd", cu_seqlens_q=rows.cu_seqlens, cu_seqlens_kv=rows.cu_seqlens,
            max_seqlen_q=longest, max_seqlen_kv=longest, plan=plan,
        )  # fmt: skip


def plan_of(params: PackedSeqParams | None) -> RowPlan:
    """The plan inside the packing parameters; a layer called without one is a programming error."""
    if not isinstance(params, PackedRowParams) or params.plan is None:
        raise TypeError("the layers of VideoMllama take PackedRowParams as packed_seq_params")
    return params.plan


class SelfCore(MegatronModule):
    """Rotates queries and keys, then attends causally inside each sample."""

    def __init__(self, config: TransformerConfig, **_: Any) -> None:
        super().__init__(config=config)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None,
        attn_mask_type: Any = None, attention_bias: Tensor | None = None, packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:  # fmt: skip
        """query [T, heads, d], key and value [T, groups, d] -> [T, heads * d]; this rank's rows under context parallelism."""
        plan = plan_of(packed_seq_params)
        query, key = apply_rope(query, *plan.rope), apply_rope(key, *plan.rope)
        if plan.context is not None:
            return context_self_attention(query, key, value, plan.context)
        return self_attention(query, key, value, plan)


class CrossCore(MegatronModule):
    """Attends from rows to frames; queries and keys come normed and rotated."""

    def __init__(self, config: TransformerConfig, **_: Any) -> None:
        super().__init__(config=config)
        self.backend: str = getattr(config, "cross_attention_backend", "auto")

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None,
        attn_mask_type: Any = None, attention_bias: Tensor | None = None, packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:  # fmt: skip
        """query [T, heads, d], key and value [F, P, groups, d] -> [T, heads * d]; this rank's under context parallelism."""
        plan = plan_of(packed_seq_params)
        if plan.context is not None:
            return context_cross_attention(query, key, value, plan.context, self.backend)
        return cross_attention(query, key, value, plan.cross, backend=self.backend)
