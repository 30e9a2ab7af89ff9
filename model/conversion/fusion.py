"""Tensor work behind the table: fuse and take apart, shard and put together. All of it is exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import TextConfig
from model.conversion.table import Rule
from model.vocabulary import padded_rows


def fuse(rule: Rule, tensors: Sequence[Tensor], config: TextConfig, tensor_parallel: int) -> Tensor:
    """Published tensors -> the whole megatron-core parameter."""
    if rule.fusion == "copy":
        return tensors[0]
    if rule.fusion == "vocabulary":
        rows = padded_rows(tensors[0].shape[0], tensor_parallel)
        return F.pad(tensors[0], (0, 0, 0, rows - tensors[0].shape[0]))
    if rule.fusion == "gate_up":
        return torch.cat(list(tensors))
    # By key/value group: its queries, its key, its value; so that a contiguous share of rows is a share of groups.
    groups, head_dim = config.num_key_value_heads, config.head_dim
    return torch.cat([t.view(groups, -1, head_dim, t.shape[-1]) for t in tensors], dim=1).flatten(0, 2)


def take_apart(rule: Rule, tensor: Tensor, config: TextConfig) -> list[Tensor]:
    """The whole megatron-core parameter -> the published tensors, in the rule's order."""
    if rule.fusion == "copy":
        return [tensor]
    if rule.fusion == "vocabulary":
        rows = config.embedding_rows if rule.megatron.startswith("embedding") else config.vocab_size
        return [tensor[:rows]]
    if rule.fusion == "gate_up":
        return list(tensor.chunk(2))
    groups, head_dim = config.num_key_value_heads, config.head_dim
    heads = [1, 1] if rule.fusion == "key_value" else [config.num_attention_heads // groups, 1, 1]
    grouped = tensor.view(groups, sum(heads), head_dim, tensor.shape[-1])
    return [part.flatten(0, 2) for part in grouped.split(heads, dim=1)]


def shard(rule: Rule, tensor: Tensor, size: int, rank: int) -> Tensor:
    """The share of one tensor-parallel rank."""
    if rule.sharding == "replicated" or size == 1:
        return tensor
    if rule.sharding == "halves":
        halves: Tensor = tensor.unflatten(0, (2, -1))
        return halves.chunk(size, dim=1)[rank].flatten(0, 1)
    return tensor.chunk(size, dim=0 if rule.sharding == "rows" else 1)[rank]


def put_together(rule: Rule, shards: Sequence[Tensor]) -> Tensor:
    """The shares of all tensor-parallel ranks, in order -> the whole parameter."""
    if rule.sharding == "replicated" or len(shards) == 1:
        return shards[0]
    if rule.sharding == "halves":
        halves: list[Tensor] = [s.unflatten(0, (2, -1)) for s in shards]
        return torch.cat(halves, dim=1).flatten(0, 1)
    return torch.cat(list(shards), dim=0 if rule.sharding == "rows" else 1)
