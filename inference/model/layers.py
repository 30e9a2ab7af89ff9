"""Decoder layers as plain tensors and arithmetic: no module machinery on the path of a token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from inference.model.attention import prefix_attention
from inference.model.linear import DenseLinear, Linear
from inference.model.plan import StepPlan
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


def _fused(tensors: Mapping[str, torch.Tensor], *names: str) -> Linear:
    """Matrices that multiply the same rows, as one."""
    return DenseLinear(tensors[names[0]] if len(names) == 1 else torch.cat([tensors[name] for name in names]))


class SelfLayer:
    """A Llama layer."""

    def __init__(self, config: TextConfig, prefix: str, tensors: Mapping[str, torch.Tensor], index: int) -> None:
        self.index = index
        self.eps = config.rms_norm_eps
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.qkv = _fused(tensors, *(f"{prefix}self_attn.{part}_proj.weight" for part in "qkv"))
        self.out = _fused(tensors, f"{prefix}self_attn.o_proj.weight")
        self.norm_in = tensors[f"{prefix}input_layernorm.weight"]
        self.norm_mlp = tensors[f"{prefix}post_attention_layernorm.weight"]
        self.gate_up = _fused(tensors, f"{prefix}mlp.gate_proj.weight", f"{prefix}mlp.up_proj.weight")
        self.down = _fused(tensors, f"{prefix}mlp.down_proj.weight")

    def forward(self, h: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        """[N, H] -> [N, H]; writes this step's keys and values into each session's cache."""
        qkv = self.qkv(rms_norm(h, self.norm_in, self.eps)).view(h.shape[0], -1, self.head_dim)
        rotated = apply_rope(qkv[:, : self.heads + self.kv_heads], plan.cos, plan.sin)
        queries, keys, values = rotated[:, : self.heads], rotated[:, self.heads :], qkv[:, self.heads + self.kv_heads :]
        found = []
        for part in plan.parts:
            rows = slice(part.offset, part.offset + part.rows)
            seen = part.cache.self_kv.write(self.index, part.cache.length, keys[rows], values[rows])
            found.append(prefix_attention(queries[rows], *seen, part.self_limits))
        h = h + self.out(found[0] if len(found) == 1 else torch.cat(found))
        return h + _swiglu(rms_norm(h, self.norm_mlp, self.eps), self.gate_up, self.down)


class CrossLayer:
    """A gated cross-attention layer: queries are normalised then rotated, keys rotated then normalised."""

    def __init__(self, config: TextConfig, prefix: str, tensors: Mapping[str, torch.Tensor], index: int) -> None:
        self.index = index
        self.eps = config.rms_norm_eps
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.query = _fused(tensors, f"{prefix}cross_attn.q_proj.weight")
        self.key_value = _fused(tensors, *(f"{prefix}cross_attn.{part}_proj.weight" for part in "kv"))
        self.out = _fused(tensors, f"{prefix}cross_attn.o_proj.weight")
        self.query_norm = tensors[f"{prefix}cross_attn.q_norm.weight"]
        self.key_norm = tensors[f"{prefix}cross_attn.k_norm.weight"]
        self.norm_in = tensors[f"{prefix}input_layernorm.weight"]
        self.norm_mlp = tensors[f"{prefix}post_attention_layernorm.weight"]
        self.gate_up = _fused(tensors, f"{prefix}mlp.gate_proj.weight", f"{prefix}mlp.up_proj.weight")
        self.down = _fused(tensors, f"{prefix}mlp.down_proj.weight")
        self.attention_gate = torch.tanh(tensors[f"{prefix}cross_attn_attn_gate"])
        self.mlp_gate = torch.tanh(tensors[f"{prefix}cross_attn_mlp_gate"])

    def add_frames(self, states: torch.Tensor, plan: StepPlan) -> None:
        """Project this step's new frames once and put them behind each session's earlier ones.

        Args:
            states: [f, P, H] features of all new frames, session by session.
        """
        frames, tokens, _ = states.shape
        kv = self.key_value(states).view(frames, tokens, 2 * self.kv_heads, self.head_dim)
        keys = kv[:, :, : self.kv_heads].reshape(frames, tokens * self.kv_heads, self.head_dim)
        keys = apply_rope(keys, plan.frame_cos, plan.frame_sin)
        keys = rms_norm(keys, self.key_norm, self.eps).view(frames, tokens, self.kv_heads, self.head_dim)
        begin = 0
        for part in plan.parts:
            end = begin + part.new_frames
            if part.new_frames:
                cache = part.cache
                cache.cross_kv.write(self.index, cache.frames, keys[begin:end], kv[begin:end, :, self.kv_heads :])
            begin = end

    def forward(self, h: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        """[N, H] -> [N, H]. Rows that see no frame come back unchanged, or only attend where the reference lets them."""
        if not plan.cross_parts:
            return h
        rows = h if plan.attending is None else h[plan.attending]
        q = self.query(rms_norm(rows, self.norm_in, self.eps)).view(rows.shape[0], self.heads, self.head_dim)
        q = apply_rope(rms_norm(q, self.query_norm, self.eps), plan.query_cos, plan.query_sin)
        found = []
        for part in plan.cross_parts:
            keys, values = part.cache.cross_kv.view(self.index, part.num_frames)
            found.append(prefix_attention(q[part.offset : part.offset + part.rows], keys, values, part.limits))
        attended = found[0] if len(found) == 1 else torch.cat(found)
        rows = rows + self.attention_gate * self.out(attended)
        seeing = rows if plan.seeing is None else rows[plan.seeing]
        seeing = seeing + self.mlp_gate * _swiglu(rms_norm(seeing, self.norm_mlp, self.eps), self.gate_up, self.down)
        rows = seeing if plan.seeing is None else rows.index_copy(0, plan.seeing, seeing)
        return rows if plan.attending is None else h.index_copy(0, plan.attending, rows)
