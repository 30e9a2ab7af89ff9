"""Patches that are nothing but padding: found, and computed as one token for each square of them."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VisionMode, vision_mode
from inference.vision.region import Region, detect_region, region_of_maxima, region_of_size
from model.errors import InputError
from model.vision.encoder import VisionEncoder, normalise_pixels
from model.vision.layers import VisionLayer
from tests.inference.vision.towers import SIDE, published, random_frames, vision_config, vision_encoder

GRID = 4
PIXELS = st.integers(1, SIDE)


def _restated(vision: VisionEncoder, frames: Tensor, region: Region, repeat_keys: bool) -> Tensor:
    """Every patch computed by the published modules, those of one square's padding from the same state: their mean.

    Tokens that start alike stay alike, so this is what one token that counts as often as they are yields; `repeat_keys=False`
    hides all but one of them from everyone.
    """
    config, tower = vision.config.vision, vision.vision_model
    skipped, ids = region.skipped(GRID), torch.ones(len(frames), dtype=torch.int64)
    x = tower.pre_tile_positional_embedding(tower.embed_patches(normalise_pixels(frames, vision.dtype)), ids)
    x = torch.cat([tower.class_embedding.expand(len(frames), 1, -1), x], 1)
    x = tower.layernorm_pre(tower.gated_positional_embedding(x, ids))
    hidden = []
    for row in range(0, GRID, config.pool_stride):
        for column in range(0, GRID, config.pool_stride):
            square = [
                1 + r * GRID + c
                for r in range(row, row + config.pool_stride)
                for c in range(column, column + config.pool_stride)
                if r >= region.rows or c >= region.columns
            ]
            assert set(square) <= set(skipped.tolist())
            if square:
                x[:, square] = x[:, square].mean(1, keepdim=True)
                hidden += square[1:]
    x = F.pad(x, (0, 0, 0, tower.pad_tokens))
    blind = torch.zeros(1, x.shape[1])
    blind[:, hidden] = 0.0 if repeat_keys else float("-inf")

    def layer(module: VisionLayer, x: Tensor) -> Tensor:
        a, y = module.self_attn, module.input_layernorm(x)
        q, k, v = (p(y).unflatten(-1, (a.heads, -1)).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        mixed = a.o_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=blind).transpose(1, 2).flatten(2))
        x = x + (module.gate_attn.tanh() if module.gated else 1) * mixed
        return x + (module.gate_ffn.tanh() if module.gated else 1) * module.mlp(module.post_attention_layernorm(x))

    states = []
    for module in tower.transformer.layers:
        states.append(x)
        x = layer(module, x)
    states.append(x)
    x = tower.post_tile_positional_embedding(tower.layernorm_post(x), ids)
    for module in tower.global_transformer.layers:
        x = layer(module, x)
    real = 1 + GRID * GRID
    kept = torch.stack([states[i][:, :real] for i in config.intermediate_layers_indices], dim=-1).flatten(2)
    return vision.project(torch.cat([x[:, :real], kept], dim=-1))


@given(
    height=PIXELS,
    width=PIXELS,
    count=st.integers(1, 4),
    repeat_keys=st.booleans(),
    keep_pad=st.booleans(),
    pool_mode=st.sampled_from(["average", "max"]),
    sizes=st.sampled_from([None, (1,), (1, 2)]),
)
def test_one_token_stands_for_the_padding_of_a_square(
    height: int, width: int, count: int, repeat_keys: bool, keep_pad: bool, pool_mode: str, sizes: tuple[int, ...] | None
) -> None:
    vision = vision_encoder(keep_pad, pool_mode)
    frames = random_frames(count, height=height, width=width)
    region = region_of_size(height, width, vision.config.vision)
    encoder = FrameEncoder(vision, mode=VisionMode(valid_rows=True, repeat_keys=repeat_keys), chunk=3, graph_sizes=sizes)
    expected = _restated(vision, frames, region, repeat_keys)
    torch.testing.assert_close(encoder.encode(frames), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode(frames, clip=encoder.new_clip(height, width)), expected, atol=1e-5, rtol=0)


def test_nothing_is_lost_where_padding_is_one_patch_of_a_square_or_nothing_is_pooled() -> None:
    """A token that stands for one patch is that patch's own; without pooling every patch keeps its token."""
    for pool_mode, stride in (("average", 1), ("none", 2)):
        vision = copy.deepcopy(vision_encoder(pool_mode=pool_mode))
        vision.config = dataclasses.replace(vision.config, vision=dataclasses.replace(vision.config.vision, pool_stride=stride))
        frames = random_frames(2, height=19)
        got = FrameEncoder(vision, mode=VisionMode(valid_rows=True)).encode(frames)
        torch.testing.assert_close(got, published(vision, frames), atol=1e-5, rtol=0)


@given(height=PIXELS, width=PIXELS)
def test_the_picture_is_found(height: int, width: int) -> None:
    vision = vision_config().vision
    frames = random_frames(2, height=height, width=width)
    assert detect_region(frames, vision) == region_of_size(height, width, vision)
    assert region_of_maxima(frames, vision) == region_of_size(height, width, vision)


def test_the_region_of_a_clip_grows_with_its_frames() -> None:
    vision = vision_encoder()
    encoder = FrameEncoder(vision, mode=VisionMode(valid_rows=True), chunk=1)
    clip = encoder.new_clip()
    frames = torch.cat([torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8), random_frames(1, height=16), random_frames(1, width=9)])
    regions = []
    for frame in frames:
        encoder.encode(frame[None], clip=clip)
        regions.append(clip.region)
    assert regions == [Region(1, 1), Region(2, 4), Region(4, 4)]
    # The last frame was computed whole.
    torch.testing.assert_close(encoder.encode(frames[2:], clip=clip), published(vision, frames[2:]), atol=1e-5, rtol=0)


def test_sixteen_to_nine_takes_23_of_40_rows() -> None:
    from model.config import VisionConfig

    assert region_of_size(315, 560, VisionConfig()) == Region(23, 40)
    with pytest.raises(InputError, match="picture is 600 x 560 pixels"):
        region_of_size(600, 560, VisionConfig())


def test_modes_have_names() -> None:
    assert vision_mode("fast") == VisionMode(name="fast", valid_rows=True, fp8=True)
    with pytest.raises(InputError, match="'quick' is not known; use one of exact, valid_rows, fp8, fast"):
        vision_mode("quick")
    with pytest.raises(InputError, match="near_duplicate is 0"):
        vision_mode("exact", near_duplicate=0)
