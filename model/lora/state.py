"""The adapters' entries in a sharded checkpoint."""

from __future__ import annotations

from typing import Any

from megatron.core.dist_checkpointing.mapping import ShardedTensor
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from megatron.core.utils import make_tp_sharded_tensor_for_checkpoint
from torch import nn

from model.lora.adapter import LowRankAdapter


def shard_adapter_state(chunk: nn.Module, state: dict[str, Any], prefix: str = "") -> None:
    """Corrects a decoder chunk's sharded state in place.

    A linear layer of megatron-core knows how its own matrix is sharded and takes everything else inside it for whole;
    the sharded factor of each adapter gets its real place, B of a gated MLP in halves as the matrix beside it.

    Args:
        chunk: the decoder chunk.
        state: what its `sharded_state_dict` made.
        prefix: that was given to it.
    """
    for name, adapter in chunk.named_modules():
        if not isinstance(adapter, LowRankAdapter) or adapter.kind == "whole":
            continue
        factor = "b" if adapter.kind == "column" else "a"
        local = f"{prefix}{name}.{factor}"
        entry: ShardedTensor = make_tp_sharded_tensor_for_checkpoint(
            getattr(adapter, factor), state[local].key, 0 if factor == "b" else 1, prepend_offsets=()
        )
        halves = name.endswith(".mlp.linear_fc1.adapter")
        state[local] = apply_swiglu_sharded_factory(entry, ()) if halves else entry
