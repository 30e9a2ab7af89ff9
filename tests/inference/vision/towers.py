"""A small tower with lively weights, frames for it, and the published module's features to hold against."""

from __future__ import annotations

import dataclasses
from functools import cache

import torch
from torch import Tensor

from model.config import VideoMllamaConfig
from model.vision.encoder import VisionEncoder
from tests.model.small import lively_weights, small_config

SIDE = 32


def vision_config(keep_pad: bool = True, pool_mode: str = "average") -> VideoMllamaConfig:
    config = small_config(vit_keep_pad_tokens=keep_pad)
    return dataclasses.replace(config, vision=dataclasses.replace(config.vision, pool_mode=pool_mode))


@cache
def vision_encoder(keep_pad: bool = True, pool_mode: str = "average") -> VisionEncoder:
    config = vision_config(keep_pad, pool_mode)
    encoder = VisionEncoder(config)
    weights = lively_weights(config, seed=1)
    encoder.load_state_dict({name: value for name, value in weights.items() if not name.startswith("language_model.")})
    return encoder.requires_grad_(False)


def random_frames(count: int, *, height: int = SIDE, width: int = SIDE, seed: int = 0) -> Tensor:
    """uint8 [count, 3, 32, 32]; below `height` and right of `width` zero."""
    frames = torch.randint(1, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    frames[:, :, height:] = 0
    frames[:, :, :, width:] = 0
    return frames


def published(encoder: VisionEncoder, frames: Tensor, ids: Tensor | None = None) -> Tensor:
    """[F, P, H] as training computes it."""
    features: Tensor = encoder(frames, torch.ones(len(frames), dtype=torch.int64) if ids is None else ids)
    return features
