"""Cosines and sines of any positions, computed where the positions are: no table that could be too short."""

from __future__ import annotations

import torch

from model.config import VideoMllamaConfig
from model.text.rope import inverse_frequencies


class Rotary:
    """Rotation of one model's queries and keys, as `model.text.rope.rope_tables` computes it.

    Args:
        config: head size, frequencies and the dtype that they are rounded to.
        device: where positions will be.
        dtype: of the results.
    """

    def __init__(self, config: VideoMllamaConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._dtype = dtype
        # Held, so that a captured graph neither makes nor copies it: fp32 [head_dim / 2].
        self._frequencies = inverse_frequencies(config.text, config.switches.rope_inv_freq_dtype, device)

    def __call__(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Integers [n] -> cos and sin, each [n, head_dim]; angles are computed in fp32."""
        angles = positions.float()[:, None] * self._frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(self._dtype), angles.sin().to(self._dtype)
