"""The decoder restated without any cache: every row of a session recomputed at once, in dense masks and fp64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from model.config import VideoMllamaConfig

Weights = dict[str, torch.Tensor]


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def _rotate(x: torch.Tensor, positions: torch.Tensor, config: VideoMllamaConfig) -> torch.Tensor:
    """x [n, heads, d], a plain loop over the frequencies of the published formula."""
    text, out = config.text, x.clone()
    scaling, half = text.rope_scaling, text.head_dim // 2
    for i in range(half):
        f = text.rope_theta ** (-2 * i / text.head_dim)
        wave = 2 * math.pi / f
        original = scaling.original_max_position_embeddings
        if wave > original / scaling.low_freq_factor:
            f = f / scaling.factor
        elif wave >= original / scaling.high_freq_factor:
            m = (original / wave - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
            f = (1 - m) * f / scaling.factor + m * f
        cos, sin = torch.cos(positions * f)[:, None], torch.sin(positions * f)[:, None]
        out[..., i] = x[..., i] * cos - x[..., i + half] * sin
        out[..., i + half] = x[..., i + half] * cos + x[..., i] * sin
    return out


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """q [n, heads, d], k and v [S, kv_heads, d], seen bool [n, S]; rows that see nothing give 0."""
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = torch.einsum("nhd,shd->hns", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~seen, float("-inf")).softmax(-1).nan_to_num(0.0)
    return torch.einsum("hns,shd->nhd", scores, v).flatten(1)


def full_forward(
    config: VideoMllamaConfig,
    weights: Weights,
    tokens: Sequence[int],
    frame_states: torch.Tensor,
    rotate_query: Sequence[bool],
    frames_in_reach: Sequence[int],
) -> torch.Tensor:
    """fp64 logits [n, V] of a whole session.

    Args:
        frame_states: [F, P, H] of all frames, in the order of their image tokens.
        rotate_query: per row, whether its cross-attention query is rotated.
        frames_in_reach: per row, how many frames existed when the row was computed (matters to rows that see none).
    """
    text, switches = config.text, config.switches
    w = {name: value.double() for name, value in weights.items()}
    ids = torch.tensor(tokens)
    n, hq, hkv, d = len(tokens), text.num_attention_heads, text.num_key_value_heads, text.head_dim
    position = torch.arange(n, dtype=torch.float64)
    image = ids == config.image_token_id
    visible = image.cumsum(0)
    reach = torch.tensor(frames_in_reach)
    per_frame = frame_states.shape[1]
    frame_of_key = torch.arange(frame_states.shape[0]).repeat_interleave(per_frame)
    sees = frame_of_key[None] < visible[:, None]
    if switches.no_visible_rows == "attend_all":
        sees = torch.where((visible == 0)[:, None], frame_of_key[None] < reach[:, None], sees)
    states = frame_states.double().flatten(0, 1)
    key_position = position[image].repeat_interleave(per_frame)
    h = w["language_model.model.embed_tokens.weight"][ids]
    for i in range(text.num_hidden_layers):
        p = f"language_model.model.layers.{i}."
        x = _norm(h, w[p + "input_layernorm.weight"], text.rms_norm_eps)
        if i in text.cross_attention_layers:
            a = p + "cross_attn."
            q = _norm((x @ w[a + "q_proj.weight"].T).view(n, hq, d), w[a + "q_norm.weight"], text.rms_norm_eps)
            q = torch.where(torch.tensor(rotate_query)[:, None, None], _rotate(q, position, config), q)
            k = _rotate((states @ w[a + "k_proj.weight"].T).view(-1, hkv, d), key_position, config)
            k = _norm(k, w[a + "k_norm.weight"], text.rms_norm_eps)
            v = (states @ w[a + "v_proj.weight"].T).view(-1, hkv, d)
            h = h + w[p + "cross_attn_attn_gate"].tanh() * (_attend(q, k, v, sees) @ w[a + "o_proj.weight"].T)
            scale = w[p + "cross_attn_mlp_gate"].tanh() * (visible > 0)[:, None]
        else:
            a = p + "self_attn."
            q = _rotate((x @ w[a + "q_proj.weight"].T).view(n, hq, d), position, config)
            k = _rotate((x @ w[a + "k_proj.weight"].T).view(n, hkv, d), position, config)
            v = (x @ w[a + "v_proj.weight"].T).view(n, hkv, d)
            h = h + _attend(q, k, v, position[None] <= position[:, None]) @ w[a + "o_proj.weight"].T
            scale = torch.ones(1, dtype=torch.float64)
        y = _norm(h, w[p + "post_attention_layernorm.weight"], text.rms_norm_eps)
        y = (F.silu(y @ w[p + "mlp.gate_proj.weight"].T) * (y @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
        h = h + scale * y
    return _norm(h, w["language_model.model.norm.weight"], text.rms_norm_eps) @ w["language_model.lm_head.weight"].T
