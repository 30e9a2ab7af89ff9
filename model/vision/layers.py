"""Transformer blocks of the tower: pre-norm, full attention inside one frame, erf gelu."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VisionConfig


class VisionAttention(nn.Module):
    """Bias-free multi-head attention over all tokens of a frame."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        frames, tokens, width = x.shape
        q, k, v = (
            projection(x).view(frames, tokens, self.heads, width // self.heads).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(frames, tokens, width))
        return output


class VisionMLP(nn.Module):
    """Two linear maps with the exact (erf) gelu between them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return output


class VisionLayer(nn.Module):
    """One block; a gated one scales both residual branches by the tanh of a scalar."""

    def __init__(self, config: VisionConfig, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.products: Any = None
        """Products of the fused layer, `model.vision.fused.products.Products`; None: in the dtype of the weights."""
        self.self_attn = VisionAttention(config)
        self.mlp = VisionMLP(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        if gated:
            self.gate_attn = nn.Parameter(torch.full((1,), math.pi / 4))
            self.gate_ffn = nn.Parameter(torch.full((1,), math.pi / 4))

    def forward(self, x: Tensor) -> Tensor:
        """x [F, tokens, D] -> [F, tokens, D]."""
        attended = self.self_attn(self.input_layernorm(x))
        x = x + (self.gate_attn.tanh() * attended if self.gated else attended)
        transformed: Tensor = self.mlp(self.post_attention_layernorm(x))
        output: Tensor = x + (self.gate_ffn.tanh() * transformed if self.gated else transformed)
        return output


def call_layer(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a block as it is."""
    output: Tensor = layer(x)
    return output


class VisionTransformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, config: VisionConfig, num_layers: int, gated: bool) -> None:
        super().__init__()
        self.apply_layer: Callable[[nn.Module, Tensor], Tensor] = call_layer
        """How a block is applied: training may put a function here that keeps less for the backward pass."""
        self.layers = nn.ModuleList([VisionLayer(config, gated) for _ in range(num_layers)])

    def forward(self, x: Tensor, keep: tuple[int, ...] = ()) -> tuple[Tensor, list[Tensor]]:
        """Runs the stack.

        Args:
            x: [F, tokens, D].
            keep: indices of states to return, in this order; index i is the input of layer i, and the number of
                layers stands for the output of the last one.

        Returns:
            The last output and the kept states.
        """
        kept: dict[int, Tensor] = {}
        for index, layer in enumerate(self.layers):
            if index in keep:
                kept[index] = x
            x = self.apply_layer(layer, x)
        kept[len(self.layers)] = x
        return x, [kept[index] for index in keep]
