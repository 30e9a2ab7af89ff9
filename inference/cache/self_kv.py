"""Keys and values of the self-attention layers, one preallocated block that doubles when it is full."""

from __future__ import annotations

import torch


class SelfKV:
    """Storage [layer, 2, position, kv_heads, head_dim]; keys are stored after rotation.

    The number of used positions belongs to `SessionCache`: every layer of a step writes the same rows.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, capacity: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._store = torch.empty(layers, 2, max(capacity, 1), kv_heads, head_dim, device=device, dtype=dtype)

    @property
    def capacity(self) -> int:
        """Positions for which there is room now."""
        return int(self._store.shape[2])

    @property
    def num_bytes(self) -> int:
        return self._store.numel() * self._store.element_size()

    def reserve(self, positions: int, used: int) -> None:
        """Make room for `positions` rows, keeping the first `used`."""
        if positions <= self.capacity:
            return
        layers, two, _, heads, dim = self._store.shape
        grown = self._store.new_empty(layers, two, max(positions, 2 * self.capacity), heads, dim)
        grown[:, :, :used] = self._store[:, :, :used]
        self._store = grown

    def write(self, layer: int, begin: int, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the rows of a step behind the `begin` rows already there.

        Args:
            layer: index among the self layers.
            begin: rows that were there before.
            keys: [n, kv_heads, head_dim], rotated.
            values: [n, kv_heads, head_dim].

        Returns:
            Views of all keys and all values, [begin + n, kv_heads, head_dim] each.
        """
        end = begin + keys.shape[0]
        block = self._store[layer]
        block[0, begin:end] = keys
        block[1, begin:end] = values
        return block[0, :end], block[1, :end]
