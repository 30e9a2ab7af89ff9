"""Decoder layers as plain tensors and arithmetic: no module machinery on the path of a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from inference.cache.cross_kv import CrossKV
from inference.cache.self_kv import SelfKV
from inference.model.attention import prefix_attention
from model.config import TextConfig
from model.text.rope import apply_rope


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise in fp32, round to the input's dtype, then scale: the order of rounding that the weights were trained with."""
    if x.dtype == torch.float32:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x.float(), weight.shape, None, eps).to(x.dtype) * weight


def _swiglu(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


@dataclass
class RowPlan:
    """What all layers of one step share."""

    begin: int
    """Rows in the cache before this step."""
    cos: torch.Tensor
    sin: torch.Tensor
    """[n, head_dim] of this step's text positions."""
    self_limits: torch.Tensor | None
    """int64 [n] keys seen in the self layers; None for a single row."""
    rotate_queries: bool
    """Whether cross-attention queries are rotated in this step."""
    num_frames: int
    """Frames in the cache, this step's included."""
    first_visible_row: int
    """Rows before it see no frame (visibility never shrinks, so they come first)."""
    attend_all: bool
    """Whether rows without a visible frame attend to every frame, as the reference lets them."""
    cross_limits: torch.Tensor | None
    """int64 [rows that attend] keys seen in the cross layers; None: all of them."""


class SelfLayer:
    """A Llama layer."""

    def __init__(self, config: TextConfig, prefix: str, tensors: Mapping[str, torch.Tensor], index: int) -> None:
        self.index = index
        self.eps = config.rms_norm_eps
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        names = [f"{prefix}self_attn.{part}_proj.weight" for part in "qkv"]
        self.qkv = torch.cat([tensors[name] for name in names])
        self.out = tensors[f"{prefix}self_attn.o_proj.weight"]
        self.norm_in = tensors[f"{prefix}input_layernorm.weight"]
        self.norm_mlp = tensors[f"{prefix}post_attention_layernorm.weight"]
        self.gate_up = torch.cat([tensors[f"{prefix}mlp.gate_proj.weight"], tensors[f"{prefix}mlp.up_proj.weight"]])
        self.down = tensors[f"{prefix}mlp.down_proj.weight"]

    def forward(self, h: torch.Tensor, plan: RowPlan, cache: SelfKV) -> torch.Tensor:
        """[n, H] -> [n, H]; writes this step's keys and values."""
        qkv = F.linear(rms_norm(h, self.norm_in, self.eps), self.qkv).view(h.shape[0], -1, self.head_dim)
        rotated = apply_rope(qkv[:, : self.heads + self.kv_heads], plan.cos, plan.sin)
        keys, values = cache.write(self.index, plan.begin, rotated[:, self.heads :], qkv[:, self.heads + self.kv_heads :])
        h = h + F.linear(prefix_attention(rotated[:, : self.heads], keys, values, plan.self_limits), self.out)
        return h + _swiglu(rms_norm(h, self.norm_mlp, self.eps), self.gate_up, self.down)


class CrossLayer:
    """A gated cross-attention layer: queries are normalised then rotated, keys rotated then normalised."""

    def __init__(self, config: TextConfig, prefix: str, tensors: Mapping[str, torch.Tensor], index: int) -> None:
        self.index = index
        self.eps = config.rms_norm_eps
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.query = tensors[f"{prefix}cross_attn.q_proj.weight"]
        self.key_value = torch.cat([tensors[f"{prefix}cross_attn.{part}_proj.weight"] for part in "kv"])
        self.out = tensors[f"{prefix}cross_attn.o_proj.weight"]
        self.query_norm = tensors[f"{prefix}cross_attn.q_norm.weight"]
        self.key_norm = tensors[f"{prefix}cross_attn.k_norm.weight"]
        self.norm_in = tensors[f"{prefix}input_layernorm.weight"]
        self.norm_mlp = tensors[f"{prefix}post_attention_layernorm.weight"]
        self.gate_up = torch.cat([tensors[f"{prefix}mlp.gate_proj.weight"], tensors[f"{prefix}mlp.up_proj.weight"]])
        self.down = tensors[f"{prefix}mlp.down_proj.weight"]
        self.attention_gate = torch.tanh(tensors[f"{prefix}cross_attn_attn_gate"])
        self.mlp_gate = torch.tanh(tensors[f"{prefix}cross_attn_mlp_gate"])

    def add_frames(self, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, begin: int, cache: CrossKV) -> None:
        """Project new frames once.

        Args:
            states: [f, P, H] projected frame features.
            cos: [f, head_dim] of the frames' positions; sin: the same.
            begin: frames in the cache before.
        """
        frames, tokens, _ = states.shape
        kv = F.linear(states, self.key_value).view(frames, tokens, 2 * self.kv_heads, self.head_dim)
        keys = apply_rope(kv[:, :, : self.kv_heads].reshape(frames, tokens * self.kv_heads, self.head_dim), cos, sin)
        keys = rms_norm(keys, self.key_norm, self.eps).view(frames, tokens, self.kv_heads, self.head_dim)
        cache.write(self.index, begin, keys, kv[:, :, self.kv_heads :])

    def forward(self, h: torch.Tensor, plan: RowPlan, cache: CrossKV) -> torch.Tensor:
        """[n, H] -> [n, H]. Rows that see no frame come back unchanged unless `attend_all`."""
        blind = plan.first_visible_row
        skipped = 0 if plan.attend_all else blind
        if skipped == h.shape[0]:
            return h
        rows = h[skipped:]
        q = F.linear(rms_norm(rows, self.norm_in, self.eps), self.query).view(rows.shape[0], self.heads, self.head_dim)
        q = rms_norm(q, self.query_norm, self.eps)
        if plan.rotate_queries:
            q = apply_rope(q, plan.cos[skipped:], plan.sin[skipped:])
        keys, values = cache.view(self.index, plan.num_frames)
        rows = rows + self.attention_gate * F.linear(prefix_attention(q, keys, values, plan.cross_limits), self.out)
        seeing = rows[blind - skipped :]
        if seeing.shape[0]:
            seeing = seeing + self.mlp_gate * _swiglu(rms_norm(seeing, self.norm_mlp, self.eps), self.gate_up, self.down)
        if blind == 0:
            return seeing
        return torch.cat([h[:skipped], rows[: blind - skipped], seeing])
