"""Specs of the two kinds of decoder layers, and of one pipeline stage's block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)

from model.text.cross_attention import FrameCrossAttention, FrameCrossAttentionSubmodules
from model.text.fused_mlp import FusedMLP
from model.text.fused_norms import FUSED_NORMS
from model.text.provider import ModuleProvider


def _norm(provider: ModuleProvider) -> Any:
    """A norm before a column-parallel product: nothing where the product's module has it."""
    return provider.norm if provider.norm_column_linear is None else IdentityOp


def _mlp(provider: ModuleProvider) -> ModuleSpec:
    first = provider.norm_column_linear or provider.column_linear
    parts = MLPSubmodules(linear_fc1=first, linear_fc2=provider.row_linear)
    if provider.swiglu is None:
        return ModuleSpec(module=MLP, submodules=parts)
    return ModuleSpec(module=FusedMLP, submodules=parts, params={"swiglu": provider.swiglu})


def self_layer(provider: ModuleProvider) -> ModuleSpec:
    """A Llama layer: pre-norm grouped-query attention and SwiGLU."""
    attention = SelfAttentionSubmodules(
        linear_qkv=provider.norm_column_linear or provider.column_linear,
        core_attention=provider.self_core,
        linear_proj=provider.row_linear,
    )
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=_norm(provider),
            self_attention=ModuleSpec(module=SelfAttention, params={"attn_mask_type": AttnMaskType.causal}, submodules=attention),
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=_norm(provider),
            mlp=_mlp(provider),
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=dict(FUSED_NORMS),
        ),
    )


def cross_layer(provider: ModuleProvider) -> ModuleSpec:
    """A gated cross-attention layer: no self-attention, its own MLP."""
    attention = FrameCrossAttentionSubmodules(
        linear_q=provider.norm_column_linear or provider.column_linear,
        linear_kv=provider.frame_linear or provider.column_linear,
        core_attention=provider.cross_core,
        linear_proj=provider.row_linear,
        q_layernorm=provider.norm,
        k_layernorm=provider.norm,
    )
    return ModuleSpec(
        module=provider.cross_layer,
        submodules=TransformerLayerSubmodules(
            pre_cross_attn_layernorm=_norm(provider),
            cross_attention=ModuleSpec(module=FrameCrossAttention, submodules=attention),
            cross_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=_norm(provider),
            mlp=_mlp(provider),
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=dict(FUSED_NORMS),
        ),
    )


def stage_block(
    config: TransformerConfig, cross_layers: Sequence[int], provider: ModuleProvider, vp_stage: int | None
) -> TransformerBlockSubmodules:
    """The layers of this rank's pipeline stage.

    Args:
        config: knows the layout of the pipeline.
        cross_layers: indices (from 0, over the whole decoder) of the cross-attention layers.
        provider: the modules to build with.
        vp_stage: virtual stage of this rank, None without virtual stages.
    """
    first = get_transformer_layer_offset(config, vp_stage=vp_stage)
    count = get_num_layers_to_build(config, vp_stage=vp_stage)
    specs = [cross_layer(provider) if i in cross_layers else self_layer(provider) for i in range(first, first + count)]
    return TransformerBlockSubmodules(layer_specs=specs, layer_norm=provider.norm)
