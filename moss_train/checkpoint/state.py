"""The sharded state of the models and optimizers, as megatron-core's dist_checkpointing takes and returns it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing.mapping import ShardedTensor

METADATA: dict[str, Any] = {
    # Every parameter's optimizer state is stored whole under its own name, so that any layout can read it.
    "distrib_optim_sharding_type": "fully_reshardable",
    "chained_optim_avoid_prefix": True,
    "non_homogeneous_layers": True,
}


def vision_state(vision: torch.nn.Module, prefix: str = "vision.") -> dict[str, ShardedTensor]:
    """The replicated vision parameters; only rank 0's copy is written."""
    rank = dist.get_rank()
    return {
        name: ShardedTensor.from_rank_offsets(prefix + name, parameter, replica_id=(0, 0, rank))
        for name, parameter in vision.named_parameters()
    }


def model_state(chunks: Sequence[torch.nn.Module], vision: torch.nn.Module) -> dict[str, Any]:
    """Decoder chunks under `model0`, `model1`, …, the vision encoder under `vision`.

    Args:
        chunks: decoder chunks without wrappers.
        vision: the vision encoder, or the unit with a dense head whose encoder is stored under the same names.
    """
    state: dict[str, Any] = {}
    for i, chunk in enumerate(chunks):
        state[f"model{i}"] = chunk.sharded_state_dict(metadata=METADATA)  # type: ignore[operator]
    encoder = getattr(vision, "encoder", vision)
    state["vision"] = vision_state(encoder)
    head = getattr(vision, "dense_head", None)
    if head is not None:
        state["dense_head"] = vision_state(head, "dense_head.")
    return state


def put_back(state: dict[str, Any], chunks: Sequence[torch.nn.Module], vision: torch.nn.Module) -> None:
    """Copy a loaded `model_state` into the modules."""
    for i, chunk in enumerate(chunks):
        chunk.load_state_dict(state[f"model{i}"])
    getattr(vision, "encoder", vision).load_state_dict(state["vision"])
    head = getattr(vision, "dense_head", None)
    if head is not None and "dense_head" in state:
        head.load_state_dict(state["dense_head"])
