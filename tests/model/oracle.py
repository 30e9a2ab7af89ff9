"""The decoder restated in fp64 with dense masks, straight from published tensors: slow, plain, independent."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from model.config import VideoMllamaConfig
from model.rows import PackedRows


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def _rotate(x: Tensor, positions: Tensor, config: VideoMllamaConfig) -> Tensor:
    """x [n, heads, d]; every pair (i, i + d/2) as a complex number times exp(i * angle)."""
    text, half = config.text, config.text.head_dim // 2
    scaling = text.rope_scaling
    frequencies = []
    for i in range(half):
        f = text.rope_theta ** (-2 * i / text.head_dim)
        wave = 2 * math.pi / f
        if wave > scaling.original_max_position_embeddings / scaling.low_freq_factor:
            f /= scaling.factor
        elif wave > scaling.original_max_position_embeddings / scaling.high_freq_factor:
            m = (scaling.original_max_position_embeddings / wave - scaling.low_freq_factor) / (
                scaling.high_freq_factor - scaling.low_freq_factor
            )
            f = (1 - m) * f / scaling.factor + m * f
        frequencies.append(f)
    angles = positions.double()[:, None] * torch.tensor(frequencies, dtype=torch.float64)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q [n, heads, d], k and v [m, groups, d], mask bool [n, m]; a row that may look nowhere gives 0."""
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = torch.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).nan_to_num(0.0)
    return torch.einsum("hnm,mhd->nhd", weights, v).flatten(1)


def _mlp(x: Tensor, w: Mapping[str, Tensor], prefix: str) -> Tensor:
    gate = x @ w[f"{prefix}gate_proj.weight"].T
    return (gate * torch.sigmoid(gate) * (x @ w[f"{prefix}up_proj.weight"].T)) @ w[f"{prefix}down_proj.weight"].T


def frame_mask(rows: PackedRows, mode: str) -> Tensor:
    """bool [T, F]: what each row attends to."""
    frames = torch.arange(rows.num_frames)
    mask = (rows.frame_begin[:, None] <= frames) & (frames < rows.frame_end[:, None])
    if mode == "attend_all":
        frame_sample = torch.bucketize(frames, rows.cu_frames[1:-1].long(), right=True)
        own = row_samples(rows)[:, None] == frame_sample
        mask = torch.where(mask.any(1, keepdim=True), mask, own)
    return mask


def row_samples(rows: PackedRows) -> Tensor:
    """Sample of every row, [T]."""
    return torch.bucketize(torch.arange(rows.num_rows), rows.cu_seqlens[1:-1].long(), right=True)


def oracle_logits(
    rows: PackedRows,
    frame_states: Tensor,
    weights: Mapping[str, Tensor],
    config: VideoMllamaConfig,
    rotated: Tensor | None = None,
) -> Tensor:
    """Logits [T, V] in fp64; where `rotated` bool [T] is false, the row's cross-attention query is left unrotated."""
    text = config.text
    w = {name: t.double() for name, t in weights.items()}
    heads, groups, d = text.num_attention_heads, text.num_key_value_heads, text.head_dim
    sample = row_samples(rows)
    order = torch.arange(rows.num_rows)
    causal = (sample[:, None] == sample) & (order <= order[:, None])
    sees = frame_mask(rows, config.switches.no_visible_rows)
    seen = (rows.frame_end > rows.frame_begin).double()[:, None]
    states = frame_states.double().flatten(0, 1)
    tokens = frame_states.shape[1]
    h = w["language_model.model.embed_tokens.weight"][rows.input_ids]
    for i in range(text.num_hidden_layers):
        layer = f"language_model.model.layers.{i}."
        y = _norm(h, w[f"{layer}input_layernorm.weight"], text.rms_norm_eps)
        attention = f"{layer}{'cross' if i in text.cross_attention_layers else 'self'}_attn."
        source = states if i in text.cross_attention_layers else y
        q = (y @ w[f"{attention}q_proj.weight"].T).view(-1, heads, d)
        k, v = ((source @ w[f"{attention}{n}_proj.weight"].T).view(-1, groups, d) for n in "kv")
        if i not in text.cross_attention_layers:
            mixed = _attend(_rotate(q, rows.position_ids, config), _rotate(k, rows.position_ids, config), v, causal)
            h = h + mixed @ w[f"{attention}o_proj.weight"].T
            h = h + _mlp(_norm(h, w[f"{layer}post_attention_layernorm.weight"], text.rms_norm_eps), w, f"{layer}mlp.")
            continue
        if rows.num_frames == 0:
            continue
        q = _norm(q, w[f"{attention}q_norm.weight"], text.rms_norm_eps)
        turned = _rotate(q, rows.position_ids, config)
        q = turned if rotated is None else torch.where(rotated[:, None, None], turned, q)
        k = _norm(
            _rotate(k, rows.frame_positions.repeat_interleave(tokens), config), w[f"{attention}k_norm.weight"], text.rms_norm_eps
        )
        mixed = _attend(q, k, v, sees.repeat_interleave(tokens, dim=1))
        h = h + w[f"{layer}cross_attn_attn_gate"].tanh() * (mixed @ w[f"{attention}o_proj.weight"].T)
        y = _mlp(_norm(h, w[f"{layer}post_attention_layernorm.weight"], text.rms_norm_eps), w, f"{layer}mlp.")
        h = h + w[f"{layer}cross_attn_mlp_gate"].tanh() * seen * y
    h = _norm(h, w["language_model.model.norm.weight"], text.rms_norm_eps)
    return h @ w["language_model.lm_head.weight"].T
