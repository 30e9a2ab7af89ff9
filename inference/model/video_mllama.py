"""VideoMllama for one process: encode frames, then run rows against a session's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from inference.cache.session_cache import SessionCache
from inference.model.layers import CrossLayer, SelfLayer, rms_norm
from inference.model.linear import DenseLinear, Linear
from inference.model.plan import RowGroup, plan_step
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.text.rope import rope_tables
from model.vision.encoder import VisionEncoder

VISION_CHUNK = 64
"""Frames encoded in one call of the tower; bounds its memory."""


class VideoMllama:
    """Weights and arithmetic of one checkpoint. Holds no session: that is `SessionCache`.

    Build it with `inference.model.load_model`.
    """

    def __init__(
        self,
        config: VideoMllamaConfig,
        vision: VisionEncoder,
        text: Mapping[str, torch.Tensor],
        *,
        folder: Path,
        details: Mapping[str, Any],
    ) -> None:
        self.config = config
        self.vision = vision
        self.folder = folder
        self.details = dict(details)
        """The `moss_train` section of config.json: stage, frame policy, template. Empty for a foreign checkpoint."""
        self.embedding = text["language_model.model.embed_tokens.weight"]
        self.head: Linear = DenseLinear(text["language_model.lm_head.weight"])
        self.final_norm = text["language_model.model.norm.weight"]
        self.device, self.dtype = self.embedding.device, self.embedding.dtype
        self.layers: list[SelfLayer | CrossLayer] = []
        counts = {SelfLayer: 0, CrossLayer: 0}
        for i in range(config.text.num_hidden_layers):
            kind = CrossLayer if i in config.text.cross_attention_layers else SelfLayer
            self.layers.append(kind(config.text, f"language_model.model.layers.{i}.", text, counts[kind]))
            counts[kind] += 1
        self._cross_layers = [layer for layer in self.layers if isinstance(layer, CrossLayer)]
        self._rope = self._rope_tables(1024)

    def new_cache(self, *, positions: int = 256, frames: int = 16) -> SessionCache:
        """An empty session with room for so many rows and frames before it grows."""
        return SessionCache(self.config, self.device, self.dtype, positions=positions, frames=frames)

    @torch.inference_mode()
    def encode(self, frames: torch.Tensor, aspect_ratio_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Vision features of frames, in the form that cross-attention reads.

        Args:
            frames: uint8 [F, 3, S, S], padded at the bottom and right with 0; or float, already normalised.
            aspect_ratio_ids: int64 [F]; 1 for real frames (default), 0 for padding frames.

        Returns:
            [F, P, H] in the model's dtype.

        Raises:
            InputError: another shape than [F, 3, S, S].
        """
        side = self.config.vision.image_size
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (self.config.vision.num_channels, side, side):
            raise InputError(f"frames have the shape {list(frames.shape)}; this checkpoint takes [F, 3, {side}, {side}]")
        if aspect_ratio_ids is None:
            aspect_ratio_ids = torch.ones(frames.shape[0], dtype=torch.int64)
        chunks = []
        for begin in range(0, frames.shape[0], VISION_CHUNK):
            pixels = frames[begin : begin + VISION_CHUNK].to(self.device)
            ids = aspect_ratio_ids[begin : begin + VISION_CHUNK].to(self.device)
            chunks.append(self.vision(pixels if pixels.dtype == torch.uint8 else pixels.to(self.dtype), ids).to(self.dtype))
        if not chunks:
            tokens, hidden = self.config.vision.tokens_per_frame, self.config.text.hidden_size
            return torch.empty(0, tokens, hidden, device=self.device, dtype=self.dtype)
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    @torch.inference_mode()
    def run(self, groups: Sequence[RowGroup], *, every_row: bool = False) -> torch.Tensor:
        """Append rows (and frames) to one or more sessions in one pass.

        Args:
            groups: new rows, one group per session; the sessions' caches are changed in place.
            every_row: logits of all rows, not of each group's last alone.

        Returns:
            fp32 logits [rows of all groups, vocab_size], or [groups, vocab_size].
        """
        longest = 0
        for group in groups:
            group.cache.reserve(len(group.tokens), group.new_frames)
            longest = max(longest, group.cache.length + len(group.tokens), *(p + 1 for p in group.frame_positions), 0)
        if longest > self._rope[0].shape[0]:
            self._rope = self._rope_tables(max(longest, 2 * self._rope[0].shape[0]))
        switches = self.config.switches
        plan = plan_step(
            groups,
            self._rope,
            tokens_per_frame=self.config.vision.tokens_per_frame,
            attend_all=switches.no_visible_rows == "attend_all",
            always_rotate=switches.decode_query_rope == "always",
        )
        new = [group.frame_states for group in groups if group.frame_states is not None and group.new_frames]
        if new:
            states = new[0] if len(new) == 1 else torch.cat(new)
            for cross in self._cross_layers:
                cross.add_frames(states, plan)
        tokens = [token for group in groups for token in group.tokens]
        h = F.embedding(torch.tensor(tokens, dtype=torch.int64, device=self.device), self.embedding)
        for layer in self.layers:
            h = layer.forward(h, plan)
        for group in groups:
            group.cache.length += len(group.tokens)
            group.cache.frames += group.new_frames
        if not every_row:
            last = [part.offset + part.rows - 1 for part in plan.parts]
            h = h[-1:] if len(last) == 1 else h[last]
        return self.head(rms_norm(h, self.final_norm, self.config.text.rms_norm_eps)).float()

    def _rope_tables(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) [positions, head_dim]."""
        rows = torch.arange(positions, dtype=torch.int64, device=self.device)
        return rope_tables(self.config.text, rows, self.config.switches.rope_inv_freq_dtype, self.dtype)
