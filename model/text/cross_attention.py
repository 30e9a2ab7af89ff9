"""Grouped-query attention from text rows to frame tokens, with the family's asymmetric norms and rotation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.transformer.attention import Attention, CrossAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from model.attention.cores import plan_of
from model.text.rope import apply_rope


@dataclass
class FrameCrossAttentionSubmodules(CrossAttentionSubmodules):
    q_layernorm: Any = None
    k_layernorm: Any = None


class FrameCrossAttention(Attention):
    """Queries are normed and then rotated; keys are rotated and then normed, as in the published weights."""

    def __init__(
        self, config: TransformerConfig, submodules: FrameCrossAttentionSubmodules, layer_number: int,
        attn_mask_type: AttnMaskType = AttnMaskType.padding, cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            config=config, submodules=submodules, layer_number=layer_number, attn_mask_type=attn_mask_type,
            attention_type="cross", cp_comm_type=cp_comm_type, pg_collection=pg_collection,
        )  # fmt: skip
        linear = {"init_method": config.init_method, "gather_output": False, "bias": False, "skip_bias_add": False}
        linear |= {"is_expert": False, "tp_group": self.tp_group}
        # Frame states are whole on every tensor-parallel rank, so their projection never gathers or scatters rows.
        frame_config = copy.copy(config)
        frame_config.sequence_parallel = False
        self.linear_q = submodules.linear_q(config.hidden_size, self.query_projection_size, config=config, **linear)
        self.linear_kv = submodules.linear_kv(config.hidden_size, 2 * self.kv_projection_size, config=frame_config, **linear)
        norm = {"hidden_size": self.hidden_size_per_attention_head, "config": config, "eps": config.layernorm_epsilon}
        self.q_layernorm = submodules.q_layernorm(**norm)
        self.k_layernorm = submodules.k_layernorm(**norm)

    def get_query_key_value_tensors(
        self, hidden_states: Tensor, key_value_states: Tensor | None = None, output_gate: bool = False, split_qkv: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Projections before norm and rotation: q [T, heads, d], k and v [F, P, groups, d] of this rank."""
        head_dim, groups = self.hidden_size_per_attention_head, self.num_query_groups_per_partition
        query = self.linear_q(hidden_states)[0].view(-1, self.num_attention_heads_per_partition, head_dim)
        key_value = self.linear_kv(key_value_states)[0]
        key, value = key_value.view(*key_value.shape[:2], groups, 2, head_dim).unbind(3)
        return query, key, value

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, frame_states: Tensor, packed_seq_params: PackedSeqParams
    ) -> Tensor:
        """Attends from rows to frames.

        Args:
            hidden_states: [T, 1, H], or this rank's share of the rows under sequence parallelism.
            frame_states: [F, P, H].
            packed_seq_params: `PackedRowParams`.

        Returns:
            The output projection, shaped as `hidden_states`; zero for rows that attend to no frame.
        """
        plan = plan_of(packed_seq_params)
        query, key, value = self.get_query_key_value_tensors(hidden_states, frame_states)
        query = apply_rope(self.q_layernorm(query), *plan.rope)
        key = self.k_layernorm(apply_rope(key, *plan.frame_rope))
        if self.checkpoint_core_attention and self.training:
            mixed = self._checkpointed_attention_forward(query, key, value, None, packed_seq_params=packed_seq_params)
        else:
            mixed = self.core_attention(query, key, value, packed_seq_params=packed_seq_params)
        output: Tensor = self.linear_proj(mixed[:, None])[0]
        return output
