"""Decoder layers as plain tensors and arithmetic: no module machinery on the path of a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from inference.cache.pool import KVPool
from inference.kernels import paged_attention
from inference.kernels.heads import norm_rotate, rotate_and_store, store_frames
from inference.kernels.norms import add_rms_norm, rms_norm
from inference.model.linear import fuse
from inference.model.rows import FrameRows, StepTensors
from model.config import TextConfig


class Residual(NamedTuple):
    """The residual stream between two blocks: a sum that the next norm will make, so that both are one launch."""

    h: torch.Tensor
    """[N, H]"""
    change: torch.Tensor | None = None
    """[N, H], the last block's result."""
    gate: torch.Tensor | None = None
    """Factor of `change`, [1] or [N]; None: 1."""

    def norm(self, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum and its norm, [N, H] each."""
        if self.change is None:
            return self.h, rms_norm(self.h, weight, eps)
        return add_rms_norm(self.h, self.change, weight, eps, self.gate)


class SelfLayer:
    """A Llama layer."""

    def __init__(self, config: TextConfig, prefix: str, tensors: Mapping[str, torch.Tensor], index: int) -> None:
        self.index = index
        self.eps = config.rms_norm_eps
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.qkv = fuse(tensors, *(f"{prefix}self_attn.{part}_proj.weight" for part in "qkv"))
        self.out = fuse(tensors, f"{prefix}self_attn.o_proj.weight")
        self.norm_in = tensors[f"{prefix}input_layernorm.weight"]
        self.norm_mlp = tensors[f"{prefix}post_attention_layernorm.weight"]
        self.gate_up = fuse(tensors, f"{prefix}mlp.gate_proj.weight", f"{prefix}mlp.up_proj.weight")
        self.down = fuse(tensors, f"{prefix}mlp.down_proj.weight")

    def forward(self, stream: Residual, step: StepTensors) -> Residual:
        """Writes the rows' keys and values into their slots, then lets each row see its own session's."""
        h, x = stream.norm(self.norm_in, self.eps)
        pool, i = step.self_pool, self.index
        keys, values, scales = pool.keys(i), pool.values(i), pool.scales(i)
        raw = pool.raw_keys(i) if pool.shape.raw_keys else None
        slots = step.rows.slots
        q = rotate_and_store(self.qkv(x), step.cos, step.sin, keys, values, slots, scales=scales, raw_keys=raw)
        attended = paged_attention(q, keys, values, scales, step.rows.self_view)
        h, x = add_rms_norm(h, self.out(attended), self.norm_mlp, self.eps)
        return Residual(h, self.down(self.gate_up.swiglu(x)))


class CrossLayer:
    """A gated cross-attention layer: queries are normalised then rotated, keys rotated then normalised."""

    def __init__(self, config: TextConfig, prefix: str, tensors: Mapping[str, torch.Tensor], index: int) -> None:
        self.index = index
        self.eps = config.rms_norm_eps
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.query = fuse(tensors, f"{prefix}cross_attn.q_proj.weight")
        self.key_value = fuse(tensors, *(f"{prefix}cross_attn.{part}_proj.weight" for part in "kv"))
        self.out = fuse(tensors, f"{prefix}cross_attn.o_proj.weight")
        self.query_norm = tensors[f"{prefix}cross_attn.q_norm.weight"]
        self.key_norm = tensors[f"{prefix}cross_attn.k_norm.weight"]
        self.norm_in = tensors[f"{prefix}input_layernorm.weight"]
        self.norm_mlp = tensors[f"{prefix}post_attention_layernorm.weight"]
        self.gate_up = fuse(tensors, f"{prefix}mlp.gate_proj.weight", f"{prefix}mlp.up_proj.weight")
        self.down = fuse(tensors, f"{prefix}mlp.down_proj.weight")
        self.attention_gate = torch.tanh(tensors[f"{prefix}cross_attn_attn_gate"])
        self.mlp_gate = torch.tanh(tensors[f"{prefix}cross_attn_mlp_gate"])

    def add_frames(self, states: torch.Tensor, frames: FrameRows, pool: KVPool) -> None:
        """Project new frames once and write their keys and values into their pages.

        Args:
            states: [f, P, H] features.
            frames: where they stand and go.
            pool: the cross pool.
        """
        i = self.index
        raw = pool.raw_keys(i) if pool.shape.raw_keys else None
        store_frames(
            self.key_value(states).flatten(0, 1),
            frames.cos,
            frames.sin,
            self.key_norm,
            self.eps,
            pool.keys(i),
            pool.values(i),
            frames.slots,
            scales=pool.scales(i),
            raw_keys=raw,
        )

    def forward(self, stream: Residual, step: StepTensors) -> Residual:
        """Rows that see no frame pass unchanged, or only attend where the reference lets them."""
        if not step.attends:
            return stream
        h, x = stream.norm(self.norm_in, self.eps)
        pool, i = step.cross_pool, self.index
        q = self.query(x).view(h.shape[0], self.heads, self.head_dim)
        q = norm_rotate(q, self.query_norm, self.eps, step.query_cos, step.query_sin)
        attended = paged_attention(q, pool.keys(i), pool.values(i), pool.scales(i), step.rows.cross_view)
        h, x = add_rms_norm(h, self.out(attended), self.norm_mlp, self.eps, self.attention_gate)
        gate = self.mlp_gate * step.rows.sees if step.mlp_gates is None else step.mlp_gates[i]
        return Residual(h, self.down(self.gate_up.swiglu(x)), gate)
