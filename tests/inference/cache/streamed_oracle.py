"""The decoder without any cache, where every row says for itself what it sees and at which positions: dense, in fp64.

Beside it, what a policy keeps, restated on plain lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from model.config import VideoMllamaConfig
from tests.inference.oracle import Weights, _attend, _norm, _rotate

Token = tuple[tuple[int, ...], int, int]
"""A visual token: the tokens of a frame that it is the mean of, the frame's number, its position."""


@dataclass
class Sight:
    """What one row sees."""

    position: int
    rows: list[tuple[int, int]]
    """(number, position) of the rows before it that are kept, and itself."""
    tokens: list[Token]


def streamed_forward(
    config: VideoMllamaConfig, weights: Weights, tokens: Sequence[int], frame_states: torch.Tensor, sights: Sequence[Sight]
) -> torch.Tensor:
    """fp64 logits [n, V]; frame_states [F, P, H]. Rows that see no frame pass the cross layers unchanged."""
    text = config.text
    w = {name: value.double() for name, value in weights.items()}
    hq, hkv, d = text.num_attention_heads, text.num_key_value_heads, text.head_dim
    position = torch.tensor([sight.position for sight in sights], dtype=torch.float64)
    per_frame = frame_states.shape[1]
    states = frame_states.double().flatten(0, 1)
    h = w["language_model.model.embed_tokens.weight"][torch.tensor(tokens)]
    mixes = [_mix(sight.tokens, per_frame, states.shape[0]) for sight in sights]
    seeing = torch.tensor([bool(sight.tokens) for sight in sights])[:, None]
    for i in range(text.num_hidden_layers):
        p = f"language_model.model.layers.{i}."
        x = _norm(h, w[p + "input_layernorm.weight"], text.rms_norm_eps)
        found = []
        if i in text.cross_attention_layers:
            a = p + "cross_attn."
            q = _norm((x @ w[a + "q_proj.weight"].T).view(-1, hq, d), w[a + "q_norm.weight"], text.rms_norm_eps)
            q = _rotate(q, position, config)
            raw, values = ((states @ w[a + f"{part}_proj.weight"].T) for part in "kv")
            for row, sight in enumerate(sights):
                places = torch.tensor([token[2] for token in sight.tokens], dtype=torch.float64)
                k = _rotate((mixes[row] @ raw).view(-1, hkv, d), places, config)
                k = _norm(k, w[a + "k_norm.weight"], text.rms_norm_eps)
                every = torch.ones(1, len(k), dtype=torch.bool)
                found.append(_attend(q[row : row + 1], k, (mixes[row] @ values).view(-1, hkv, d), every))
            out = torch.cat(found) @ w[a + "o_proj.weight"].T
            h = h + seeing * w[p + "cross_attn_attn_gate"].tanh() * out
            scale = w[p + "cross_attn_mlp_gate"].tanh() * seeing
        else:
            a = p + "self_attn."
            q, k, v = ((x @ w[a + f"{part}_proj.weight"].T).view(len(tokens), -1, d) for part in "qkv")
            q = _rotate(q, position, config)
            for row, sight in enumerate(sights):
                index = torch.tensor([number for number, _ in sight.rows])
                places = torch.tensor([place for _, place in sight.rows], dtype=torch.float64)
                every = torch.ones(1, len(index), dtype=torch.bool)
                found.append(_attend(q[row : row + 1], _rotate(k[index], places, config), v[index], every))
            h = h + torch.cat(found) @ w[a + "o_proj.weight"].T
            scale = torch.ones(1, dtype=torch.float64)
        y = _norm(h, w[p + "post_attention_layernorm.weight"], text.rms_norm_eps)
        y = (F.silu(y @ w[p + "mlp.gate_proj.weight"].T) * (y @ w[p + "mlp.up_proj.weight"].T)) @ w[p + "mlp.down_proj.weight"].T
        h = h + scale * y
    return _norm(h, w["language_model.model.norm.weight"], text.rms_norm_eps) @ w["language_model.lm_head.weight"].T


def _mix(tokens: Sequence[Token], per_frame: int, width: int) -> torch.Tensor:
    """fp64 [tokens, all frame tokens]; rows sum to 1."""
    mix = torch.zeros(len(tokens), width, dtype=torch.float64)
    for row, (members, frame, _) in enumerate(tokens):
        for member in members:
            mix[row, frame * per_frame + member] = 1 / len(members)
    return mix


@dataclass
class PlainKeeper:
    """A policy on plain lists. Frames have four patches, so that two pooled tokens are left of five."""

    kind: str
    window: int = 0
    sink: int = 0
    batches: int = 0
    class_pages: int = 0
    text_sink: int = 0
    text_window: int | None = None
    page_rows: int = 4
    renumber_at: int | None = None
    rows: list[tuple[int, int]] = field(default_factory=list)
    whole: list[tuple[int, int]] = field(default_factory=list)
    """(frame number, position)"""
    pooled: list[list[Token]] = field(default_factory=list)
    """One list of tokens a page."""
    old: list[list[Token]] = field(default_factory=list)
    next_position: int = 0
    renumberings: int = 0

    def tokens(self) -> list[Token]:
        coarse = [token for page in [*self.old, *self.pooled] for token in page]
        return coarse + [((i,), frame, position) for frame, position in self.whole for i in range(5)]

    def settle(self) -> None:
        if self.kind == "window":
            self.whole = self.whole[-self.window :]
        if self.kind == "sink_window":
            self.whole = self.whole[: self.sink] + self.whole[self.sink :][-self.window :]
        while self.kind == "pooled" and len(self.whole) >= self.window + 5:
            batch, self.whole = self.whole[:5], self.whole[5:]
            flat: list[Token] = [(m, frame, position) for frame, position in batch for m in ((0,), (1, 2, 3, 4))]
            self.pooled += [flat[:5], flat[5:]]
        while len(self.pooled) > 2 * self.batches:
            self.old.append([t for t in self.pooled[0] + self.pooled[1] if t[0] == (0,)])
            self.pooled = self.pooled[2:]
        self.old = self.old[max(0, len(self.old) - self.class_pages) :]
        if self.text_window is not None:
            first = -(-self.text_sink // self.page_rows) * self.page_rows
            while len(self.rows) - first - self.text_window >= self.page_rows:
                del self.rows[first : first + self.page_rows]
        if self.renumber_at is not None and self.next_position > self.renumber_at:
            self._renumber()

    def _renumber(self) -> None:
        coarse = [page[-1][2] for page in [*self.old, *self.pooled]]
        places = sorted({position for _, position in self.rows} | {position for _, position in self.whole} | set(coarse))
        new = {place: i for i, place in enumerate(places)}
        self.rows = [(number, new[position]) for number, position in self.rows]
        self.whole = [(frame, new[position]) for frame, position in self.whole]
        self.old, self.pooled = (
            [[(members, frame, new[page[-1][2]]) for members, frame, _ in page] for page in pages]
            for pages in (self.old, self.pooled)
        )
        self.next_position = len(places)
        self.renumberings += 1
