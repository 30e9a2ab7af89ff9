"""The tower's parameters in the form that the encoder multiplies with: q, k and v as one matrix, position tables added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.vision.between import Norm
from inference.vision.blocks import PATCH_ALIGNMENT, Layer, PixelScale, Positions
from inference.vision.products import Matrix, fp8_matrix
from inference.vision.region import Region
from model.vision.encoder import PIXEL_MEAN, PIXEL_STD, VisionEncoder
from model.vision.layers import VisionLayer


@dataclass
class TowerWeights:
    """Everything that `Tower` reads."""

    pixels: PixelScale
    patches: Matrix
    """[D, C * patch * patch, filled up to the alignment of products]"""
    first: Tensor
    """[D], the class token."""
    norm_pre: Norm
    entry: Norm
    """Of the first layer's input."""
    local: list[Layer]
    after: Tensor
    """[max_aspect_ratio_id + 1, 1, D], added behind the local layers."""
    global_entry: Norm | None
    """Of the first global layer's input."""
    global_: list[Layer]
    projector: Matrix
    """[H, (1 + kept states) * D], the columns ordered by state, the last state first."""

    def num_bytes(self) -> int:
        """Bytes of all matrices."""
        layers = [*self.local, *self.global_]
        matrices = [m for layer in layers for m in (layer.qkv, layer.out, layer.up, layer.down)]
        return sum(m.num_bytes for m in [self.patches, self.projector, *matrices])


@torch.no_grad()
def tower_weights(encoder: VisionEncoder, *, fp8: bool = False) -> TowerWeights:
    """Prepares the weights of an encoder.

    The encoder keeps working with the same numbers: where weights stay in their dtype its q, k and v become views of the joint
    matrix, so that nothing is held twice.

    Args:
        fp8: matrices of the layers in float8_e4m3fn.
    """
    tower = encoder.vision_model
    width = tower.config.hidden_size
    post = _norm(tower.layernorm_post)
    local = [cast(VisionLayer, layer) for layer in tower.transformer.layers]
    last = [cast(VisionLayer, layer) for layer in tower.global_transformer.layers]
    patches = tower.patch_embedding.weight.flatten(1)
    entries = [_norm(layer.input_layernorm) for layer in local]
    global_entries = [_norm(layer.input_layernorm) for layer in last]
    kept = len(tower.config.intermediate_layers_indices)
    projector = encoder.multi_modal_projector
    # Published columns: the final state, then for every channel its value in each kept state.
    final, states = projector.weight[:, :width], projector.weight[:, width:].unflatten(1, (width, kept)).transpose(1, 2)
    post_tile = tower.post_tile_positional_embedding
    return TowerWeights(
        pixels=PixelScale(*(torch.tensor(v, device=patches.device).view(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))),
        patches=Matrix(F.pad(patches, (0, -patches.shape[1] % PATCH_ALIGNMENT))),
        first=tower.class_embedding,
        norm_pre=_norm(tower.layernorm_pre),
        entry=entries[0] if entries else post,
        local=[_layer(a, norm, fp8) for a, norm in zip(local, [*entries[1:], post], strict=False)],
        after=(post_tile.embedding.weight[:, None, :width] * post_tile.gate.tanh()),
        global_entry=global_entries[0] if last else None,
        # Nothing reads the norm behind the last layer.
        global_=[_layer(a, norm, fp8) for a, norm in zip(last, [*global_entries[1:], post], strict=False)],
        projector=Matrix(torch.cat([final, states.flatten(1)], dim=1), projector.bias),
    )


@torch.inference_mode()
def position_tables(encoder: VisionEncoder, region: Region, ids: Tensor) -> Positions:
    """What is added to the tokens of a region, each term rounded as the published modules round it.

    Args:
        ids: int64 [1 or F] aspect-ratio ids.
    """
    tower = encoder.vision_model
    width, positions = tower.config.hidden_size, tower.config.num_positions
    tokens = region.tokens(tower.config.grid_size).to(tower.class_embedding.device)
    tile, shared = tower.pre_tile_positional_embedding, tower.gated_positional_embedding
    gate = shared.gate.tanh()
    rows = shared.tile_embedding.weight[ids, : positions * width].view(-1, positions, width)
    return Positions(
        tile=tile.embedding.weight[ids, None, :width] * tile.gate.tanh(),
        shared=((1 - gate) * shared.embedding)[tokens],
        own=(gate * rows)[:, tokens],
    )


def _layer(layer: VisionLayer, next_norm: Norm, fp8: bool) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    joint = torch.cat([part.weight for part in parts])
    form = fp8_matrix if fp8 else Matrix
    if not fp8:
        for part, rows in zip(parts, joint.chunk(3), strict=True):
            # A new parameter, since the old one may be a training run's own.
            part.weight = nn.Parameter(rows, requires_grad=False)
    # Two tensors also where both are 1: a compiled layer tells one tensor from two.
    ones = (joint.new_ones(1), joint.new_ones(1))
    gates = (layer.gate_attn.tanh(), layer.gate_ffn.tanh()) if layer.gated else ones
    return Layer(
        qkv=form(joint),
        out=form(attention.o_proj.weight),
        up=form(mlp.fc1.weight, mlp.fc1.bias),
        down=form(mlp.fc2.weight, mlp.fc2.bias),
        norm_mlp=_norm(layer.post_attention_layernorm),
        gate_attention=gates[0],
        gate_mlp=gates[1],
        next_norm=next_norm,
    )


def _norm(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight, norm.bias)
