"""Tensor work behind the table: fuse and take apart, shard and put together. All of it is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import TextConfig
from model.conversion.table import Rule
from model.vocabulary import padded_rows


@dataclass(frozen=True)
class Segment:
    """Rows [hf_row, hf_row + rows) of a rule's published tensor `part` are the fused rows [row, row + rows)."""

    part: int
    hf_row: int
    row: int
    rows: int


def heights(rule: Rule, whole: int, config: TextConfig) -> list[int]:
    """Rows of a rule's published tensors, from those of the megatron-core parameter (its padding included)."""
    if rule.fusion == "copy":
        return [whole]
    if rule.fusion == "vocabulary":
        return [config.embedding_rows if rule.megatron.startswith("embedding") else config.vocab_size]
    if rule.fusion == "query_key_value":
        narrow = config.num_key_value_heads * config.head_dim
        return [config.num_attention_heads * config.head_dim, narrow, narrow]
    return [whole // 2, whole // 2]


def segments(rule: Rule, parts: Sequence[int], config: TextConfig) -> list[Segment]:
    """Where the rows of the published tensors lie in the megatron-core parameter, in the order of its rows.

    Args:
        rule: the parameter.
        parts: rows of each published tensor.
        config: knows the key/value groups.
    """
    # By key/value group: its queries, its key, its value; so that a contiguous share of rows is a share of groups.
    groups = config.num_key_value_heads if rule.fusion in ("query_key_value", "key_value") else 1
    found, row = [], 0
    for group in range(groups):
        for part, height in enumerate(parts):
            rows = height // groups
            found.append(Segment(part, group * rows, row, rows))
            row += rows
    return found


def fused_rows(rule: Rule, parts: Sequence[int], tensor_parallel: int) -> int:
    """Rows of the megatron-core parameter, padding of the vocabulary included."""
    return padded_rows(parts[0], tensor_parallel) if rule.fusion == "vocabulary" else sum(parts)


def fuse(rule: Rule, tensors: Sequence[Tensor], config: TextConfig, tensor_parallel: int) -> Tensor:
    """Published tensors -> the whole megatron-core parameter."""
    if rule.fusion == "copy":
        return tensors[0]
    parts = [t.shape[0] for t in tensors]
    if rule.fusion == "vocabulary":
        return F.pad(tensors[0], (0, 0, 0, fused_rows(rule, parts, tensor_parallel) - parts[0]))
    return torch.cat([tensors[s.part][s.hf_row : s.hf_row + s.rows] for s in segments(rule, parts, config)])


def take_apart(rule: Rule, tensor: Tensor, config: TextConfig) -> list[Tensor]:
    """The whole megatron-core parameter -> the published tensors, in the rule's order."""
    parts = heights(rule, tensor.shape[0], config)
    pieces: list[list[Tensor]] = [[] for _ in parts]
    for s in segments(rule, parts, config):
        pieces[s.part].append(tensor[s.row : s.row + s.rows])
    return [found[0] if len(found) == 1 else torch.cat(found) for found in pieces]


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
