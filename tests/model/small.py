"""A model small enough for milliseconds, and random packed rows for it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from model.config import SwitchConfig, TextConfig, VideoMllamaConfig, VisionConfig
from model.rows import IGNORE_INDEX, PackedRows


def small_config(**switches: object) -> VideoMllamaConfig:
    """Five decoder layers of which two are cross layers; a vocabulary that is not a multiple of 8."""
    return VideoMllamaConfig(
        vision=VisionConfig(
            hidden_size=16, num_attention_heads=2, num_hidden_layers=3, num_global_layers=1, intermediate_size=32, image_size=32,
            patch_size=8, intermediate_layers_indices=(1, 2), pool_mode="average", pool_stride=2, max_num_tiles=2,
            max_aspect_ratio_id=2,
        ),
        text=TextConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=5, cross_attention_layers=(1, 3), num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=48, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        ),
        switches=SwitchConfig(**switches),  # type: ignore[arg-type]
    )  # fmt: skip


def with_text(config: VideoMllamaConfig, **changes: object) -> VideoMllamaConfig:
    """The config with other text fields."""
    return dataclasses.replace(config, text=dataclasses.replace(config.text, **changes))  # type: ignore[arg-type]


def packed_rows(config: VideoMllamaConfig, samples: list[tuple[int, list[int]]], seed: int, targets: bool = True) -> PackedRows:
    """Random tokens; sample = (rows, rows of its frames' image tokens), visible by the counting rule."""
    generator = torch.Generator().manual_seed(seed)
    ids, positions, begin, end, frame_positions = [], [], [], [], []
    cu_seqlens, cu_frames = [0], [0]
    for length, markers in samples:
        tokens = torch.randint(0, config.text.vocab_size, (length,), generator=generator)
        tokens[torch.tensor(markers, dtype=torch.long)] = config.image_token_id
        ids.append(tokens)
        positions.append(torch.arange(length))
        begin.append(torch.full((length,), cu_frames[-1]))
        end.append(cu_frames[-1] + (tokens == config.image_token_id).cumsum(0))
        frame_positions += markers
        cu_seqlens.append(cu_seqlens[-1] + length)
        cu_frames.append(cu_frames[-1] + len(markers))
    input_ids = torch.cat(ids)
    wanted = torch.cat([input_ids[1:], input_ids[:1]])
    wanted = torch.where(torch.rand(len(wanted), generator=generator) < 0.6, wanted, IGNORE_INDEX)
    wanted[wanted == config.image_token_id] = IGNORE_INDEX
    wanted[torch.tensor(cu_seqlens[1:]) - 1] = IGNORE_INDEX
    return PackedRows(
        input_ids=input_ids, position_ids=torch.cat(positions), cu_seqlens=torch.tensor(cu_seqlens, dtype=torch.int32),
        cu_frames=torch.tensor(cu_frames, dtype=torch.int32), frame_begin=torch.cat(begin).int(), frame_end=torch.cat(end).int(),
        frame_positions=torch.tensor(frame_positions, dtype=torch.int64), targets=wanted if targets else None,
    )  # fmt: skip


def random_states(config: VideoMllamaConfig, frames: int, seed: int) -> Tensor:
    """Frame states [F, P, H]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, config.vision.tokens_per_frame, config.text.hidden_size, generator=generator)


def lively_weights(config: VideoMllamaConfig, seed: int) -> dict[str, Tensor]:
    """Random weights in which nothing is neutral: gates, norms and biases differ from their initial values."""
    from model.initialise import RandomWeights

    generator = torch.Generator().manual_seed(seed)
    weights = dict(RandomWeights(config, seed, text_deviation=0.15))
    return {n: t + (0.3 * torch.randn(t.shape, generator=generator) if t.dim() == 1 else 0) for n, t in weights.items()}
