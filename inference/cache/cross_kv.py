"""Keys and values of the frames for every cross-attention layer, with the few heads they were projected to."""

from __future__ import annotations

import torch


class CrossKV:
    """Storage [layer, 2, frame, P, kv_heads, head_dim]; keys are stored after rotation and normalisation.

    A frame's block is written once, when the frame arrives, and never copied again except when the store doubles.
    """

    def __init__(
        self,
        layers: int,
        tokens_per_frame: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.tokens_per_frame = tokens_per_frame
        self._store = torch.empty(layers, 2, max(capacity, 1), tokens_per_frame, kv_heads, head_dim, device=device, dtype=dtype)

    @property
    def capacity(self) -> int:
        """Frames for which there is room now."""
        return int(self._store.shape[2])

    @property
    def num_bytes(self) -> int:
        return self._store.numel() * self._store.element_size()

    def reserve(self, frames: int, used: int) -> None:
        """Make room for `frames` frames, keeping the first `used`."""
        if frames <= self.capacity:
            return
        layers, two, _, tokens, heads, dim = self._store.shape
        grown = self._store.new_empty(layers, two, max(frames, 2 * self.capacity), tokens, heads, dim)
        grown[:, :, :used] = self._store[:, :, :used]
        self._store = grown

    def write(self, layer: int, begin: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put new frames behind the `begin` frames already there.

        Args:
            layer: index among the cross layers.
            begin: frames that were there before.
            keys: [f, P, kv_heads, head_dim], rotated, then normalised.
            values: [f, P, kv_heads, head_dim].
        """
        end = begin + keys.shape[0]
        self._store[layer, 0, begin:end] = keys
        self._store[layer, 1, begin:end] = values

    def view(self, layer: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the first `frames` frames, [frames * P, kv_heads, head_dim] each, without a copy."""
        block = self._store[layer, :, :frames]
        return block[0].flatten(0, 1), block[1].flatten(0, 1)
