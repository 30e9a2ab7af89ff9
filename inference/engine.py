"""The step engine: tokens and new frames in, logits out. No thread, no clock, no text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.cache.session_cache import SessionCache
from inference.model.video_mllama import VideoMllama
from model.errors import InputError


class StepEngine:
    """Feeds one model; every session is a `SessionCache` that the caller keeps.

    A frame is visible to the row of its image token and to all rows after it. Feeding a sequence in any
    portions gives the logits of feeding it whole, as long as the switches are the correct ones.
    """

    def __init__(self, model: VideoMllama) -> None:
        self.model = model
        self.image_id = model.config.image_token_id

    def new_cache(self, *, positions: int = 256, frames: int = 16) -> SessionCache:
        """An empty session."""
        return self.model.new_cache(positions=positions, frames=frames)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Vision features [F, P, H] of uint8 frames [F, 3, S, S]."""
        return self.model.encode(frames)

    def step(
        self,
        cache: SessionCache,
        tokens: Sequence[int],
        frame_states: torch.Tensor | None = None,
        *,
        every_row: bool = False,
    ) -> torch.Tensor:
        """Append tokens and the frames whose image tokens are among them.

        Args:
            cache: the session, changed in place.
            tokens: ids of the new rows, at least one.
            frame_states: [f, P, H] from `encode`, in the order of their image tokens.
            every_row: logits of all rows instead of the last.

        Returns:
            fp32 logits [n, vocab_size], or [1, vocab_size] of the last row.

        Raises:
            InputError: no token, an id outside the vocabulary, or another number of frames than image tokens.
        """
        if not tokens:
            raise InputError("a step has no tokens; feed at least one")
        positions, visible = [], []
        seen = cache.frames
        for row, token in enumerate(tokens):
            if not 0 <= token <= self.image_id:
                raise InputError(
                    f"token id {token} is outside the vocabulary of {self.image_id + 1}; use the checkpoint's own tokenizer"
                )
            if token == self.image_id:
                positions.append(cache.length + row)
                seen += 1
            visible.append(seen)
        given = 0 if frame_states is None else frame_states.shape[0]
        if given != len(positions):
            raise InputError(f"a step has {len(positions)} image tokens and {given} frames; give one frame per image token")
        return self.model.run_rows(cache, tokens, visible, frame_states, positions, every_row=every_row)
