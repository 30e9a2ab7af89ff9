"""The one table of tensors: published names, megatron-core's names, how they are fused and how they are sharded."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from model.config import VideoMllamaConfig
from model.vision.encoder import VisionEncoder

TABLE_VERSION = 1
"""Rises when a rule changes; certificates carry it."""

VISION_KEY = "vision."
"""What a checkpoint puts before the names of the tower and the projector."""

FUSIONS = ("copy", "vocabulary", "query_key_value", "key_value", "gate_up")
SHARDINGS = ("replicated", "rows", "columns", "halves")


@dataclass(frozen=True)
class Rule:
    """One parameter of the training model and the published tensors that it is made of."""

    megatron: str
    """Name over the whole decoder: layers are numbered across pipeline stages. It is also the key in a checkpoint."""
    hf: tuple[str, ...]
    fusion: str = "copy"
    """copy | vocabulary (padding rows) | query_key_value, key_value (interleaved by key/value group) | gate_up."""
    sharding: str = "replicated"
    """replicated | rows | columns | halves (rows of each half separately), over the tensor-parallel group."""


def _layer_rules(index: int, is_cross: bool) -> list[Rule]:
    source, target = f"language_model.model.layers.{index}.", f"decoder.layers.{index}."
    attention = f"{source}{'cross' if is_cross else 'self'}_attn."
    rules = [
        Rule(
            f"{target}mlp.linear_fc1.weight",
            (f"{source}mlp.gate_proj.weight", f"{source}mlp.up_proj.weight"), "gate_up", "halves",
        ),
        Rule(f"{target}mlp.linear_fc2.weight", (f"{source}mlp.down_proj.weight",), sharding="columns"),
        Rule(f"{target}pre_mlp_layernorm.weight", (f"{source}post_attention_layernorm.weight",)),
    ]  # fmt: skip
    if not is_cross:
        own = f"{target}self_attention."
        fused = tuple(f"{attention}{name}_proj.weight" for name in "qkv")
        return [
            Rule(f"{own}linear_qkv.weight", fused, "query_key_value", "rows"),
            Rule(f"{own}linear_proj.weight", (f"{attention}o_proj.weight",), sharding="columns"),
            Rule(f"{target}input_layernorm.weight", (f"{source}input_layernorm.weight",)),
            *rules,
        ]
    own = f"{target}cross_attention."
    fused = tuple(f"{attention}{name}_proj.weight" for name in "kv")
    return [
        Rule(f"{own}linear_q.weight", (f"{attention}q_proj.weight",), sharding="rows"),
        Rule(f"{own}linear_kv.weight", fused, "key_value", "rows"),
        Rule(f"{own}linear_proj.weight", (f"{attention}o_proj.weight",), sharding="columns"),
        Rule(f"{own}q_layernorm.weight", (f"{attention}q_norm.weight",)),
        Rule(f"{own}k_layernorm.weight", (f"{attention}k_norm.weight",)),
        Rule(f"{target}cross_attn_attn_gate", (f"{source}cross_attn_attn_gate",)),
        Rule(f"{target}cross_attn_mlp_gate", (f"{source}cross_attn_mlp_gate",)),
        Rule(f"{target}pre_cross_attn_layernorm.weight", (f"{source}input_layernorm.weight",)),
        *rules,
    ]


def decoder_rules(config: VideoMllamaConfig) -> list[Rule]:
    """The decoder's rules, in the order of its layers."""
    model, text = "language_model.model.", config.text
    embedding = Rule("embedding.word_embeddings.weight", (f"{model}embed_tokens.weight",), "vocabulary", "rows")
    layers = [rule for i in range(text.num_hidden_layers) for rule in _layer_rules(i, i in text.cross_attention_layers)]
    norm = Rule("decoder.final_layernorm.weight", (f"{model}norm.weight",))
    head = Rule("output_layer.weight", ("language_model.lm_head.weight",), "vocabulary", "rows")
    return [embedding, *layers, norm, head]


@functools.cache  # every gather, load and save asks, and to make a tower takes long even without its memory
def _vision_shapes(config: VideoMllamaConfig) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        vision = VisionEncoder(config)
    return MappingProxyType({name: tuple(t.shape) for name, t in vision.state_dict().items()})


def all_rules(config: VideoMllamaConfig) -> list[Rule]:
    """The rules of every parameter in a checkpoint, tower and projector first: they keep their published names."""
    return [Rule(VISION_KEY + name, (name,)) for name in _vision_shapes(config)] + decoder_rules(config)


def _text_shapes(config: VideoMllamaConfig) -> dict[str, tuple[int, ...]]:
    text = config.text
    width, inner, head_dim = text.hidden_size, text.intermediate_size, text.head_dim
    narrow = text.num_key_value_heads * head_dim
    by_ending = {
        "embed_tokens.weight": (text.embedding_rows, width),
        "lm_head.weight": (text.vocab_size, width),
        "q_proj.weight": (width, width),
        "k_proj.weight": (narrow, width),
        "v_proj.weight": (narrow, width),
        "o_proj.weight": (width, width),
        "gate_proj.weight": (inner, width),
        "up_proj.weight": (inner, width),
        "down_proj.weight": (width, inner),
        "q_norm.weight": (head_dim,),
        "k_norm.weight": (head_dim,),
        "gate": (1,),
        "norm.weight": (width,),
    }
    return {
        name: next(shape for ending, shape in by_ending.items() if name.endswith(ending))
        for rule in decoder_rules(config)
        for name in rule.hf
    }


def hf_shapes(config: VideoMllamaConfig) -> dict[str, tuple[int, ...]]:
    """Every published tensor and its shape: the tower, the projector, the decoder."""
    return {**_vision_shapes(config), **_text_shapes(config)}
