"""Patches that are nothing but padding: found on the host, not computed, and taken from a reference frame."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VisionMode, vision_mode
from inference.vision.region import Region, detect_region, region_of_maxima, region_of_size, whole
from model.errors import InputError
from model.vision.encoder import VisionEncoder, normalise_pixels
from model.vision.layers import VisionLayer
from tests.inference.vision.towers import SIDE, published, random_frames, vision_config, vision_encoder

GRID = 4
PIXELS = st.integers(1, SIDE)


def _restated(vision: VisionEncoder, frames: Tensor, reference: Tensor, region: Region, borrow: bool) -> Tensor:
    """Every patch computed, and every layer told what a skipped one is: the reference's, whatever the frame holds.

    Without borrowed keys, the tokens that count do not see the skipped ones either.
    """
    config, tower = vision.config.vision, vision.vision_model
    skipped, count = region.skipped(GRID), len(frames)
    full = torch.cat([reference, frames])
    ids = torch.ones(len(full), dtype=torch.int64)
    x = tower.pre_tile_positional_embedding(tower.embed_patches(normalise_pixels(full, vision.dtype)), ids)
    x = torch.cat([tower.class_embedding.expand(len(full), 1, -1), x], 1)
    x = F.pad(tower.layernorm_pre(tower.gated_positional_embedding(x, ids)), (0, 0, 0, tower.pad_tokens))
    blind = torch.zeros(x.shape[1])
    blind[skipped] = float("-inf")

    def layer(module: VisionLayer, x: Tensor) -> Tensor:
        whole_frames = module(x)
        a = module.self_attn
        y = module.input_layernorm(x)
        q, k, v = (p(y).unflatten(-1, (a.heads, -1)).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        mixed = a.o_proj(
            F.scaled_dot_product_attention(q, k, v, attn_mask=None if borrow else blind[None]).transpose(1, 2).flatten(2)
        )
        x = x + (module.gate_attn.tanh() if module.gated else 1) * mixed
        x = x + (module.gate_ffn.tanh() if module.gated else 1) * module.mlp(module.post_attention_layernorm(x))
        x[0] = whole_frames[0]  # the reference sees itself whole
        x[1:, skipped] = x[0, skipped]
        return x

    x[1:, skipped] = x[0, skipped]
    states = []
    for module in tower.transformer.layers:
        states.append(x)
        x = layer(module, x)
    states.append(x)
    x = tower.post_tile_positional_embedding(tower.layernorm_post(x), ids)
    for module in tower.global_transformer.layers:
        x = layer(module, x)
    real = 1 + GRID * GRID
    kept = torch.stack([states[i][-count:, :real] for i in config.intermediate_layers_indices], dim=-1).flatten(2)
    return vision.project(torch.cat([x[-count:, :real], kept], dim=-1))


@given(
    height=PIXELS,
    width=PIXELS,
    count=st.integers(1, 4),
    padding=st.sampled_from(["first", "black"]),
    borrow=st.booleans(),
    keep_pad=st.booleans(),
    pool_mode=st.sampled_from(["average", "max", "none"]),
    sizes=st.sampled_from([None, (1,), (1, 2)]),
)
def test_what_is_left_out_and_what_stands_for_it(
    height: int, width: int, count: int, padding: str, borrow: bool, keep_pad: bool, pool_mode: str, sizes: tuple[int, ...] | None
) -> None:
    vision = vision_encoder(keep_pad, pool_mode)
    mode = VisionMode(valid_rows=True, padding=padding, borrow_keys=borrow)
    frames = random_frames(count, height=height, width=width)
    region = region_of_size(height, width, vision.config.vision)
    reference = frames[:1] if padding == "first" else torch.zeros_like(frames[:1])
    encoder = FrameEncoder(vision, mode=mode, chunk=3, graph_sizes=sizes)
    expected = published(vision, frames)
    if region != whole(vision.config.vision):
        expected = _restated(vision, frames, reference, region, borrow)
    torch.testing.assert_close(encoder.encode(frames), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode(frames, clip=encoder.new_clip(height, width)), expected, atol=1e-5, rtol=0)


def test_the_reference_itself_is_exact() -> None:
    """With borrowed keys a frame that equals the reference loses nothing, in squares that the picture's edge cuts neither."""
    vision = vision_encoder()
    frames = random_frames(1, height=19).repeat(3, 1, 1, 1)
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
    with pytest.raises(InputError, match="padding is 'white'"):
        VisionMode(padding="white")
    with pytest.raises(InputError, match="near_duplicate is 0"):
        vision_mode("exact", near_duplicate=0)
