"""Grouped-query attention from text rows to frame tokens, with the family's asymmetric norms and rotation."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
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
        if key_value_states is None:
            raise TypeError("cross-attention takes frame states as key_value_states")
        return self._queries(hidden_states), *self._keys_and_values(key_value_states)

    def _queries(self, hidden_states: Tensor) -> Tensor:
        projected: Tensor = self.linear_q(hidden_states)[0]
        return projected.view(-1, self.num_attention_heads_per_partition, self.hidden_size_per_attention_head)

    def _keys_and_values(self, frame_states: Tensor) -> tuple[Tensor, Tensor]:
        shape = (*frame_states.shape[:2], self.num_query_groups_per_partition, 2, self.hidden_size_per_attention_head)
        if len(frame_states) == 0:  # under context parallelism; kernels may not take empty tensors
            needs = frame_states.requires_grad or any(p.requires_grad for p in self._key_parameters())
            both = frame_states.new_zeros(shape).requires_grad_(needs and torch.is_grad_enabled())
        else:
            both = self.linear_kv(frame_states)[0].view(shape)
        key, value = both.unbind(3)
        return key, value

    def _key_parameters(self) -> Iterator[torch.nn.Parameter]:
        yield from self.linear_kv.parameters()
        yield from self.k_layernorm.parameters()

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, frame_states: Tensor, packed_seq_params: PackedSeqParams
    ) -> Tensor:
        """Attends from rows to frames.

        Args:
            hidden_states: [T, 1, H], or this rank's share of the rows under sequence parallelism.
            frame_states: [F, P, H]; this rank's frames under context parallelism, which may be none.
            packed_seq_params: `PackedRowParams`.

        Returns:
            The output projection, shaped as `hidden_states`; zero for rows that attend to no frame.
        """
        plan = plan_of(packed_seq_params)
        query = apply_rope(self.q_layernorm(self._queries(hidden_states)), *plan.rope)
        key, value = self._keys_and_values(frame_states)
        if len(frame_states):
            key = self.k_layernorm(apply_rope(key, *plan.frame_rope))
        if self.checkpoint_core_attention and self.training:
            mixed = self._checkpointed_attention_forward(query, key, value, None, packed_seq_params=packed_seq_params)
        else:
            mixed = self.core_attention(query, key, value, packed_seq_params=packed_seq_params)
        output: Tensor = self.linear_proj(mixed[:, None])[0]
        return output
