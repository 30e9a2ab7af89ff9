"""Rotary position embedding with Llama-3 frequency scaling, half-split, in plain torch.

Text rows and frames share one axis of positions: a frame has the position of its image token.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from model.config import TextConfig
from model.upload import upload


@lru_cache(maxsize=16)
def _scaled_frequencies(config: TextConfig) -> tuple[float, ...]:
    scaling, half = config.rope_scaling, config.head_dim // 2
    exponents = torch.arange(half, dtype=torch.float32) * 2 / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    wavelengths = 2 * math.pi / frequencies
    original = scaling.original_max_position_embeddings
    blend = (original / wavelengths - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    blend = blend.clamp(0, 1)  # 1: short waves, kept; 0: long waves, divided by the factor
    scaled = (1 - blend) * frequencies / scaling.factor + blend * frequencies
    return tuple(scaled.tolist())


def inverse_frequencies(config: TextConfig, inv_freq_dtype: str = "fp32", device: torch.device | str | None = None) -> Tensor:
    """fp32 [head_dim / 2], in radians a position; `bf16` rounds them to bfloat16 first, as the reference's training did."""
    frequencies = torch.tensor(_scaled_frequencies(config), dtype=torch.float32, device=device)
    return frequencies.bfloat16().float() if inv_freq_dtype == "bf16" else frequencies


def rope_angles(config: TextConfig, positions: Tensor, inv_freq_dtype: str = "fp32") -> Tensor:
    """Angles in radians, fp32 [T, head_dim], of positions int64 [T]; both halves of the last axis are equal."""
    (frequencies,) = upload([inverse_frequencies(config, inv_freq_dtype)], positions.device)
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles, angles], dim=-1)


def rope_tables(
    config: TextConfig, positions: Tensor, inv_freq_dtype: str = "fp32", dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables.

    Args:
        config: gives head_dim, theta and the scaling.
        positions: int64 [T].
        inv_freq_dtype: fp32 | bf16 (`switches.rope_inv_freq_dtype`).
        dtype: dtype of the tables; angles are always computed in fp32.

    Returns:
        cos and sin, each [T, head_dim]; both halves of the last axis are equal.
    """
    return angle_tables(rope_angles(config, positions, inv_freq_dtype), dtype)


def angle_tables(angles: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of `rope_angles`, in a dtype; the shape stays."""
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates channel i with channel i + d / 2.

    Args:
        x: [T, heads, d], or [T, ..., d] with any number of axes between.
        cos, sin: [T, d] from `rope_tables`, in the dtype of `x`.
    """
    half = x.shape[-1] // 2
    shape = (x.shape[0], *(1,) * (x.dim() - 2), half)
    c, s = cos[:, :half].view(shape), sin[:, :half].view(shape)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * c - second * s, second * c + first * s], dim=-1)
