"""Position embeddings of the tower: tile tables and the gated per-patch table.

The checkpoint's tables have room for `max_num_tiles` tiles a row. Every frame of this family is one tile, so the first
tile of a row is used; it is sliced before the look-up, which keeps the large table out of the activations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VisionConfig


class TilePositionalEmbedding(nn.Module):
    """Adds tanh(gate) times one vector a tile, chosen by the aspect-ratio id."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self.embedding = nn.Embedding(config.max_aspect_ratio_id + 1, config.max_num_tiles * config.hidden_size)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        """tokens [F, n, D], aspect_ratio_ids int64 [F] -> [F, n, D]."""
        first_tile = F.embedding(aspect_ratio_ids, self.embedding.weight[:, : self.hidden_size])
        return tokens + (first_tile * self.gate.tanh())[:, None]


class GatedPositionalEmbedding(nn.Module):
    """Blends a shared table of positions with one that depends on the aspect-ratio id."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        positions, width = config.num_positions, config.hidden_size
        self.shape = (positions, width)
        self.gate = nn.Parameter(torch.zeros(1))
        self.embedding = nn.Parameter(torch.randn(positions, width) * width**-0.5)
        self.tile_embedding = nn.Embedding(config.max_aspect_ratio_id + 1, config.max_num_tiles * positions * width)

    def forward(self, tokens: Tensor, aspect_ratio_ids: Tensor) -> Tensor:
        """tokens [F, 1 + patches, D], aspect_ratio_ids int64 [F] -> the same shape."""
        gate = self.gate.tanh()
        tokens = tokens + (1 - gate) * self.embedding
        positions, width = self.shape
        first_tile = self.tile_embedding.weight[:, : positions * width]
        return tokens + gate * F.embedding(aspect_ratio_ids, first_tile).view(-1, positions, width)
