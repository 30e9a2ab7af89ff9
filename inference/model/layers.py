"""Decoder layers as plain tensors and arithmetic: no module machinery on the path of a token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from inference.cache.pool import KVPool
from inference.kernels import paged_attention
from inference.model.linear import Linear, fuse
from inference.model.rows import FrameRows, PagedView, StepTensors
from model.config import TextConfig
from model.text.rope import apply_rope


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise in fp32, round to the input's dtype, then scale: the order of rounding that the weights were trained with."""
    if x.dtype == torch.float32:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x.float(), weight.shape, None, eps).to(x.dtype) * weight


def _swiglu(x: torch.Tensor, gate_up: Linear, down: Linear) -> torch.Tensor:
    gate, up = gate_up(x).chunk(2, dim=-1)
    return down(F.silu(gate) * up)


def attend(queries: torch.Tensor, pool: KVPool, layer: int, view: PagedView) -> torch.Tensor:
    """Queries [N, heads, head_dim] over the keys of one layer of a pool -> [N, heads * head_dim]."""
    return paged_attention(queries, pool.keys(layer), pool.values(layer), pool.scales(layer), view)


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

    def forward(self, h: torch.Tensor, step: StepTensors) -> torch.Tensor:
        """[N, H] -> [N, H]; writes the rows' keys and values into their slots, then lets each row see its own session's."""
        qkv = self.qkv(rms_norm(h, self.norm_in, self.eps)).view(h.shape[0], -1, self.head_dim)
        rotated = apply_rope(qkv[:, : self.heads + self.kv_heads], step.cos, step.sin)
        raw, values = qkv[:, self.heads : self.heads + self.kv_heads], qkv[:, self.heads + self.kv_heads :]
        pool = step.self_pool
        pool.write(self.index, step.rows.slots, rotated[:, self.heads :], values, raw if pool.shape.raw_keys else None)
        h = h + self.out(attend(rotated[:, : self.heads], pool, self.index, step.rows.self_view))
        return h + _swiglu(rms_norm(h, self.norm_mlp, self.eps), self.gate_up, self.down)


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
        count, tokens, _ = states.shape
        kv = self.key_value(states).view(count, tokens, 2 * self.kv_heads, self.head_dim)
        raw, values = kv[:, :, : self.kv_heads], kv[:, :, self.kv_heads :]
        keys = apply_rope(raw.reshape(count, tokens * self.kv_heads, self.head_dim), frames.cos, frames.sin)
        keys = rms_norm(keys, self.key_norm, self.eps).view(count * tokens, self.kv_heads, self.head_dim)
        flat = raw.flatten(0, 1) if pool.shape.raw_keys else None
        pool.write(self.index, frames.slots, keys, values.flatten(0, 1), flat)

    def forward(self, h: torch.Tensor, step: StepTensors) -> torch.Tensor:
        """[N, H] -> [N, H]. Rows that see no frame come back unchanged, or only attend where the reference lets them."""
        if not step.attends:
            return h
        q = self.query(rms_norm(h, self.norm_in, self.eps)).view(h.shape[0], self.heads, self.head_dim)
        q = apply_rope(rms_norm(q, self.query_norm, self.eps), step.query_cos, step.query_sin)
        h = h + self.attention_gate * self.out(attend(q, step.cross_pool, self.index, step.rows.cross_view))
        change = _swiglu(rms_norm(h, self.norm_mlp, self.eps), self.gate_up, self.down)
        return h + (self.mlp_gate * change).masked_fill(~step.rows.sees, 0)
