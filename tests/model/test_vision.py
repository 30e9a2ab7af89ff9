"""The tower's quirks, each against a plain restatement or by its effect."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.folder import read_hf_folder
from model.errors import InputError
from model.vision.encoder import PIXEL_MEAN, PIXEL_STD, VisionEncoder
from model.vision.pooling import pool_patches
from tests.model.oracle_tower import restated_tower
from tests.model.small import lively_weights, small_config


def _encoder(config: VideoMllamaConfig, seed: int = 1) -> VisionEncoder:
    encoder = VisionEncoder(config)
    encoder.load_state_dict({n: t for n, t in lively_weights(config, seed).items() if not n.startswith("language_model.")})
    return encoder.double()


def _pixels(frames: int) -> Tensor:
    return torch.randint(0, 256, (frames, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("keep_pad", [True, False])
def test_the_tower_equals_its_restatement(keep_pad: bool) -> None:
    config = small_config(vit_keep_pad_tokens=keep_pad)
    encoder = _encoder(config)
    pixels, ids = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([1, 0, 1])
    weights = {n.removeprefix("vision_model."): t for n, t in encoder.state_dict().items()}
    expected = restated_tower(pixels, ids, weights, config)
    got = encoder.tower(pixels, ids)
    assert got.shape == (3, 17, 16 * 3)
    assert (got - expected).abs().max() < 1e-10


def test_padding_rows_of_the_tower_change_its_features() -> None:
    pixels, ids = torch.randn(1, 3, 32, 32, dtype=torch.float64), torch.tensor([1])
    kept, dropped = (_encoder(small_config(vit_keep_pad_tokens=keep)).tower(pixels, ids) for keep in (True, False))
    assert (kept - dropped).abs().max() > 1e-4


def test_frames_do_not_see_each_other() -> None:
    encoder = _encoder(small_config())
    frames, ids = _pixels(4), torch.ones(4, dtype=torch.long)
    alone = torch.cat([encoder(frames[i : i + 1], ids[:1]) for i in range(4)])
    torch.testing.assert_close(encoder(frames, ids), alone, atol=1e-12, rtol=1e-12)


def test_bytes_are_normalised_inside() -> None:
    encoder = _encoder(small_config())
    frames, ids = _pixels(2), torch.ones(2, dtype=torch.long)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    by_hand = ((frames.float() / 255 - mean) / std).double()
    torch.testing.assert_close(encoder(frames, ids), encoder(by_hand, ids), atol=1e-6, rtol=1e-6)
    black = (torch.zeros(3, 1, 1) - mean) / std
    torch.testing.assert_close(black.flatten(), torch.tensor([-1.79226, -1.75210, -1.48022]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("mode", "reduce"), [("average", torch.mean), ("max", torch.amax)])
def test_pooling_takes_squares_of_the_grid_and_keeps_the_class_token(mode: str, reduce: object) -> None:
    features = torch.randn(2, 1 + 36, 5)
    pooled = pool_patches(features, grid=6, mode=mode, stride=3)
    assert pooled.shape == (2, 5, 5)
    assert torch.equal(pooled[:, 0], features[:, 0])
    corner = features[:, 1:].view(2, 6, 6, 5)[:, 3:6, :3].flatten(1, 2)
    expected = corner.mean(1) if mode == "average" else corner.amax(1)
    torch.testing.assert_close(pooled[:, 1 + 2], expected)
    assert torch.equal(pool_patches(features, 6, "none", 3), features)


@pytest.mark.parametrize("mode", ["average", "max", "none"])
@pytest.mark.parametrize("pads", [True, False])
def test_states_may_be_pooled_before_they_are_joined(mode: str, pads: bool) -> None:
    config = small_config(vit_keep_pad_tokens=pads)
    config = dataclasses.replace(config, vision=dataclasses.replace(config.vision, pool_mode=mode))
    found = []
    for way in ("joined", "pooled"):
        encoder = _encoder(config)
        frames, ids = _pixels(2), torch.ones(2, dtype=torch.long)
        output = encoder.project(encoder.tower(frames, ids)) if way == "joined" else encoder(frames, ids)
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        found.append((output, [p.grad for p in encoder.parameters()]))
    (joined, expected), (pooled, gradients) = found
    torch.testing.assert_close(pooled, joined, rtol=0, atol=1e-6)
    for gradient, wanted in zip(gradients, expected, strict=True):
        if wanted is not None:
            assert gradient is not None
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-5 * max(1.0, float(wanted.abs().max())))


def test_without_intermediates_and_pooling() -> None:
    config = small_config()
    vision = dataclasses.replace(config.vision, intermediate_layers_indices=(), pool_mode="none")
    config = dataclasses.replace(config, vision=vision)
    assert VisionEncoder(config)(_pixels(2), torch.ones(2, dtype=torch.long)).shape == (2, 17, 32)


def test_no_frames_give_no_features() -> None:
    config = small_config()
    assert VisionEncoder(config)(_pixels(0), torch.ones(0, dtype=torch.long)).shape == (0, 5, 32)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[2, 3, 16, 16\].*image_size"):
        VisionEncoder(small_config())(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.ones(2, dtype=torch.long))


def test_recorded_features(reference_data: object) -> None:
    folder = f"{reference_data}/golden_tiny"
    config, weights, _ = read_hf_folder(folder)
    io = load_file(f"{folder}/io.safetensors")
    encoder = VisionEncoder(config)
    encoder.load_state_dict({n: t for n, t in weights.items() if not n.startswith("language_model.")})
    vision_out = encoder.tower(io["pixel_values"].flatten(0, 2), io["aspect_ratio_ids"].flatten())
    assert (vision_out - io["vision_out"].flatten(0, 2)).abs().max() < 1e-5
    assert (encoder.project(vision_out) - io["projected"].flatten(0, 1)).abs().max() < 1e-5
