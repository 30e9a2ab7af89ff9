"""VideoMllama for one process: encode frames, then run rows against a session's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from inference.cache.session_cache import SessionCache
from inference.model.layers import CrossLayer, RowPlan, SelfLayer, rms_norm
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
        self.head = text["language_model.lm_head.weight"]
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
    def run_rows(
        self,
        cache: SessionCache,
        tokens: Sequence[int],
        visible: Sequence[int],
        frame_states: torch.Tensor | None = None,
        frame_positions: Sequence[int] = (),
        *,
        every_row: bool = False,
    ) -> torch.Tensor:
        """Append rows (and frames) to a session.

        Args:
            cache: the session; changed in place.
            tokens: ids of the n new rows, at positions cache.length, cache.length + 1, ...
            visible: number of frames that each row sees, never shrinking.
            frame_states: [f, P, H] of the frames that arrive with these rows.
            frame_positions: position of each new frame (that of its image token).
            every_row: logits of all rows, not of the last alone.

        Returns:
            fp32 logits [n or 1, vocab_size].
        """
        new_frames = 0 if frame_states is None else frame_states.shape[0]
        cache.reserve(len(tokens), new_frames)
        plan = self._plan(cache, len(tokens), visible, new_frames)
        if frame_states is not None and new_frames:
            index = torch.tensor(list(frame_positions), dtype=torch.int64, device=self.device)
            cos, sin = self._rope[0][index], self._rope[1][index]
            for cross in self._cross_layers:
                cross.add_frames(frame_states, cos, sin, cache.frames, cache.cross_kv)
        h = F.embedding(torch.tensor(tokens, dtype=torch.int64, device=self.device), self.embedding)
        for layer in self.layers:
            if isinstance(layer, SelfLayer):
                h = layer.forward(h, plan, cache.self_kv)
            elif plan.num_frames:
                h = layer.forward(h, plan, cache.cross_kv)
        cache.length += len(tokens)
        cache.frames += new_frames
        h = h if every_row else h[-1:]
        return F.linear(rms_norm(h, self.final_norm, self.config.text.rms_norm_eps), self.head).float()

    def _plan(self, cache: SessionCache, rows: int, visible: Sequence[int], new_frames: int) -> RowPlan:
        begin, total = cache.length, cache.frames + new_frames
        switches = self.config.switches
        if begin + rows > self._rope[0].shape[0]:
            self._rope = self._rope_tables(max(begin + rows, 2 * self._rope[0].shape[0]))
        blind = sum(1 for count in visible if count == 0)
        attend_all = switches.no_visible_rows == "attend_all"
        limits = [count if count else total for count in visible] if attend_all else list(visible[blind:])
        cross_limits = None
        if any(count != total for count in limits):
            cross_limits = torch.tensor(limits, dtype=torch.int64, device=self.device) * self.config.vision.tokens_per_frame
        return RowPlan(
            begin=begin,
            cos=self._rope[0][begin : begin + rows],
            sin=self._rope[1][begin : begin + rows],
            self_limits=None if rows == 1 else torch.arange(begin + 1, begin + rows + 1, device=self.device),
            rotate_queries=switches.decode_query_rope == "always" or new_frames > 0,
            num_frames=total,
            first_visible_row=blind,
            attend_all=attend_all,
            cross_limits=cross_limits,
        )

    def _rope_tables(self, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) [positions, head_dim]."""
        rows = torch.arange(positions, dtype=torch.int64, device=self.device)
        return rope_tables(self.config.text, rows, self.config.switches.rope_inv_freq_dtype, self.dtype)
