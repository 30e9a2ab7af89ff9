"""All that a running session has seen: two stores and two integers."""

from __future__ import annotations

import torch

from inference.cache.cross_kv import CrossKV
from inference.cache.self_kv import SelfKV
from model.config import VideoMllamaConfig
from model.errors import InputError


class SessionCache:
    """Self and cross keys and values of one session.

    `length` rows and `frames` frames are valid. Rows are only ever added behind, so `rewind` is free.
    """

    def __init__(
        self,
        config: VideoMllamaConfig,
        device: torch.device,
        dtype: torch.dtype,
        *,
        positions: int = 256,
        frames: int = 16,
    ) -> None:
        text = config.text
        cross_layers = len(text.cross_attention_layers)
        self.length = 0
        self.frames = 0
        self.self_kv = SelfKV(
            text.num_hidden_layers - cross_layers, text.num_key_value_heads, text.head_dim, positions, device, dtype
        )
        self.cross_kv = CrossKV(
            cross_layers, config.vision.tokens_per_frame, text.num_key_value_heads, text.head_dim, frames, device, dtype
        )

    @property
    def num_bytes(self) -> int:
        """Bytes held, room to grow included."""
        return self.self_kv.num_bytes + self.cross_kv.num_bytes

    def reserve(self, rows: int, frames: int) -> None:
        """Make room for `rows` more positions and `frames` more frames."""
        self.self_kv.reserve(self.length + rows, self.length)
        self.cross_kv.reserve(self.frames + frames, self.frames)

    def rewind(self, length: int, frames: int) -> None:
        """Forget everything behind `length` rows and `frames` frames.

        Raises:
            InputError: more rows or frames than there are.
        """
        if not (0 <= length <= self.length and 0 <= frames <= self.frames):
            raise InputError(
                f"cannot rewind a session of {self.length} rows and {self.frames} frames to {length} rows and {frames} frames; "
                "rewinding only shortens"
            )
        self.length, self.frames = length, frames
