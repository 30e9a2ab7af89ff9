"""The gated cross-attention layer: frames enter the decoder here and nowhere else."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor

from model.attention.cores import plan_of


class GatedCrossLayer(TransformerLayer):
    """h + tanh(gate) * cross-attention, then h + tanh(gate) * row_visible * MLP.

    A micro-batch without frames passes through unchanged. Rows that see no frame keep their state, except that
    `switches.no_visible_rows=attend_all` gives them attention over all frames of their sample.
    """

    def __init__(
        self, config: TransformerConfig, submodules: TransformerLayerSubmodules, layer_number: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(config=config, submodules=submodules, layer_number=layer_number, **kwargs)
        device = "cpu" if config.use_cpu_initialization else torch.cuda.current_device()
        for name in ("cross_attn_attn_gate", "cross_attn_mlp_gate"):
            gate = torch.nn.Parameter(torch.zeros(1, dtype=config.params_dtype, device=device))
            gate.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
            setattr(self, name, gate)

    def _own_rows(self, visible: Tensor) -> Tensor:
        """[T, 1, 1] -> the rows of this rank under sequence parallelism."""
        if not self.config.sequence_parallel:
            return visible
        share: Tensor = visible.chunk(self.tp_group.size())[self.tp_group.rank()]
        return share

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, context: Tensor | None = None,
        packed_seq_params: PackedSeqParams | None = None, **_: Any,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """hidden_states [T, 1, H], context: frame states [F, P, H] or None -> new hidden states and the context."""
        plan = plan_of(packed_seq_params)
        if context is None or not plan.attends:
            return hidden_states, context
        attended = self.cross_attention(self.pre_cross_attn_layernorm(hidden_states), context, packed_seq_params)
        hidden_states = hidden_states + self.cross_attn_attn_gate.tanh() * attended
        transformed, _bias = self.mlp(self.pre_mlp_layernorm(hidden_states))
        gate = self.cross_attn_mlp_gate.tanh()
        if plan.visible is not None:
            gate = gate * self._own_rows(plan.visible)
        return hidden_states + gate * transformed, context
