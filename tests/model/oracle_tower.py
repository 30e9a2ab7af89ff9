"""The vision tower restated one frame at a time, with explicit softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import VideoMllamaConfig


def restated_tower(pixels: Tensor, ids: Tensor, w: dict[str, Tensor], config: VideoMllamaConfig) -> Tensor:
    """Normalised pixels [F, 3, S, S] -> [F, 1 + patches, output_dim]; w holds `vision_model.` tensors without that prefix."""
    v = config.vision

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (v.hidden_size,), w[f"{name}.weight"], w[f"{name}.bias"], v.norm_eps)

    def block(x: Tensor, name: str, gated: bool) -> Tensor:
        y = norm(x, f"{name}.input_layernorm")
        q, k, u = ((y @ w[f"{name}.self_attn.{n}_proj.weight"].T).view(len(y), v.num_attention_heads, -1) for n in "qkv")
        scores = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5
        a = torch.einsum("hnm,mhd->nhd", scores.softmax(-1), u).flatten(1) @ w[f"{name}.self_attn.o_proj.weight"].T
        x = x + (torch.tanh(w[f"{name}.gate_attn"]) * a if gated else a)
        y = norm(x, f"{name}.post_attention_layernorm")
        y = F.gelu(y @ w[f"{name}.mlp.fc1.weight"].T + w[f"{name}.mlp.fc1.bias"]) @ w[f"{name}.mlp.fc2.weight"].T
        y = y + w[f"{name}.mlp.fc2.bias"]
        return x + (torch.tanh(w[f"{name}.gate_ffn"]) * y if gated else y)

    outputs = []
    for frame, aspect in zip(pixels, ids.tolist(), strict=True):
        x = F.conv2d(frame[None], w["patch_embedding.weight"], stride=v.patch_size)[0].flatten(1).T
        x = (
            x
            + torch.tanh(w["pre_tile_positional_embedding.gate"])
            * w["pre_tile_positional_embedding.embedding.weight"][aspect].view(v.max_num_tiles, -1)[0]
        )
        x = torch.cat([w["class_embedding"][None], x])
        gate = torch.tanh(w["gated_positional_embedding.gate"])
        tiles = w["gated_positional_embedding.tile_embedding.weight"][aspect].view(v.max_num_tiles, v.num_positions, -1)
        x = norm(x + (1 - gate) * w["gated_positional_embedding.embedding"] + gate * tiles[0], "layernorm_pre")
        real = len(x)
        if config.switches.vit_keep_pad_tokens:
            x = torch.cat([x, x.new_zeros(-real % 8, x.shape[1])])
        states = []
        for i in range(v.num_hidden_layers):
            states.append(x)
            x = block(x, f"transformer.layers.{i}", gated=False)
        states.append(x)
        x = norm(x, "layernorm_post")
        x = (
            x
            + torch.tanh(w["post_tile_positional_embedding.gate"])
            * w["post_tile_positional_embedding.embedding.weight"][aspect].view(v.max_num_tiles, -1)[0]
        )
        for i in range(v.num_global_layers):
            x = block(x, f"global_transformer.layers.{i}", gated=True)
        kept = [states[i][:real] for i in v.intermediate_layers_indices]
        interleaved = torch.stack([kept[k][:, c] for c in range(v.hidden_size) for k in range(len(kept))], dim=1)
        outputs.append(torch.cat([x[:real], interleaved], dim=1))
    return torch.stack(outputs)
