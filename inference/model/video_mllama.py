"""VideoMllama for one process: encode frames, then run rows against a session's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from inference.cache.pool import KVPool
from inference.cache.session_cache import SessionCache
from inference.cache.store import KVStore
from inference.model.layers import CrossLayer, Residual, SelfLayer
from inference.model.linear import DenseLinear, Linear
from inference.model.plan import StepPlan, plan_step
from inference.model.rotary import Rotary
from inference.model.rows import FrameRows, RowGroup, StepRows, StepTensors
from inference.vision.encoder import FrameEncoder
from model.config import VideoMllamaConfig
from model.vision.encoder import VisionEncoder


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
        self._encoder: FrameEncoder | None = None
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
        self.cross_layers = [layer for layer in self.layers if isinstance(layer, CrossLayer)]
        self.rotary = Rotary(config, self.device, self.dtype)
        gates = [layer.mlp_gate for layer in self.cross_layers]
        self._mlp_gates = torch.stack(gates) if gates else None  # [cross layers, 1]

    def new_cache(self, *, positions: int = 256, frames: int = 16) -> SessionCache:
        """An empty session in a memory of its own, with room for so many rows and frames before it grows."""
        return KVStore(self.config, self.device, self.dtype, positions=positions, frames=frames).new_cache()

    @property
    def encoder(self) -> FrameEncoder:
        """What encodes frames: exact unless another one is set here."""
        if self._encoder is None:
            self._encoder = FrameEncoder(self.vision)
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: FrameEncoder) -> None:
        self._encoder = encoder

    def matrices(self) -> list[Linear]:
        """Every matrix of the decoder that rows are multiplied with, the head last."""
        found = [value for layer in self.layers for value in vars(layer).values() if hasattr(value, "swiglu")]
        return [*found, self.head]

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
        return self.encoder.encode(frames, aspect_ratio_ids)

    @property
    def portions_freely(self) -> bool:
        """Whether rows may be fed in any portions without changing their logits; not so with switches of the reference."""
        switches = self.config.switches
        return switches.decode_query_rope == "always" and switches.no_visible_rows != "attend_all"

    @torch.inference_mode()
    def run(self, groups: Sequence[RowGroup], *, every_row: bool = False) -> torch.Tensor:
        """Append rows (and frames) to one or more sessions in one pass.

        Args:
            groups: new rows, one group per session of one memory; the sessions' caches are changed in place.
            every_row: logits of all rows, not of each group's last alone.

        Returns:
            fp32 logits [rows of all groups, vocab_size], or [groups, vocab_size].

        Raises:
            OutOfPagesError: the memory is full; sessions keep what they have seen.
        """
        for group in groups:
            group.cache.reserve(len(group.tokens), group.new_frames)
        plan = self.plan(groups)
        first = groups[0].cache
        new = [group.frame_states for group in groups if group.frame_states is not None and group.new_frames]
        if new:
            pages, positions = self._integers(plan.frame_pages), self._integers(plan.frame_positions)
            self.add_frames(new[0] if len(new) == 1 else torch.cat(new), pages, positions, first.cross_pool)
        rows = plan.tensors(self.device)
        h = self.decode(rows, rows.tokens, first.self_pool, first.cross_pool, attends=plan.attends)
        for group in groups:
            group.cache.advance(len(group.tokens), group.frame_positions)
        if not every_row:
            h = h[-1:] if len(plan.last) == 1 else h.index_select(0, self._integers(plan.last))
        return self.logits(h)

    def _integers(self, values: Sequence[int]) -> torch.Tensor:
        """int64 on the device, which nobody waits for."""
        return torch.tensor(values, dtype=torch.int64).to(self.device, non_blocking=True)

    def plan(
        self, groups: Sequence[RowGroup], *, sessions: Sequence[int] | None = None, sources: Mapping[int, int] | None = None
    ) -> StepPlan:
        """The integers of a step, see `plan_step`; the groups' caches have room reserved."""
        switches = self.config.switches
        return plan_step(
            groups,
            page_rows=self.config.vision.tokens_per_frame,
            attend_all=switches.no_visible_rows == "attend_all",
            always_rotate=switches.decode_query_rope == "always",
            sessions=sessions,
            sources=sources,
        )

    def add_frames(self, states: torch.Tensor, pages: torch.Tensor, positions: torch.Tensor, pool: KVPool) -> None:
        """Write the keys and values of new frames, for all cross layers. Static in shape; waits for nothing.

        Args:
            states: [f, P, H] from `encode`.
            pages: integers [f], a page of the cross pool for each.
            positions: integers [f], their rotary positions.
            pool: the cross pool.
        """
        within = torch.arange(pool.page_rows, device=self.device)
        cos, sin = self.rotary(positions)
        frames = FrameRows(cos, sin, (pages.long()[:, None] * pool.page_rows + within).flatten())
        for layer in self.cross_layers:
            layer.add_frames(states, frames, pool)

    def decode(
        self, rows: StepRows, tokens: torch.Tensor, self_pool: KVPool, cross_pool: KVPool, *, attends: bool = True
    ) -> torch.Tensor:
        """All decoder layers over the rows of a step. Static in shape; waits for nothing.

        Args:
            rows: where each row stands and what it sees.
            tokens: integers [N], the ids of the rows.
            self_pool: where the rows' keys and values go.
            cross_pool: where those of their frames are.
            attends: False where no row sees a frame.

        Returns:
            [N, H] behind the last norm.
        """
        # Of all positions and all gates at once: a launch of its own for each would take as long as reading a small matrix.
        cos, sin = self.rotary(torch.cat([rows.positions, rows.query_positions]))
        own, queries = (slice(begin, begin + len(tokens)) for begin in (0, len(tokens)))
        gates = self._mlp_gates * rows.sees if self._mlp_gates is not None and attends else None
        step = StepTensors(rows, cos[own], sin[own], cos[queries], sin[queries], self_pool, cross_pool, attends, gates)
        stream = Residual(F.embedding(tokens, self.embedding))
        for layer in self.layers:
            stream = layer.forward(stream, step)
        return stream.norm(self.final_norm, self.config.text.rms_norm_eps)[1]

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """[n, H] of `decode` -> fp32 [n, vocab_size]."""
        return self.head(h).float()
