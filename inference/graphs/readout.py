"""Sampled tokens on their way to the host, read when they are asked for."""

from __future__ import annotations

import torch

_DEPTH = 8
"""Steps whose tokens may be unread at once."""


class TokenRead:
    """The tokens of one step."""

    def __init__(self, host: torch.Tensor, event: torch.cuda.Event | None) -> None:
        self._host, self._event = host, event
        self._tokens: list[int] | None = None

    def tokens(self) -> list[int]:
        """Waits for the copy of this step's tokens, not for what was launched behind it; -1 where none could be chosen."""
        if self._tokens is None:
            if self._event is not None:
                self._event.synchronize()
            self._tokens = self._host.tolist()
        return self._tokens


class ReadOut:
    """Copies tokens off the device behind the step that samples them.

    Args:
        rows: the most tokens of a step.
        device: where they are sampled.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._next = 0
        self._reads: list[TokenRead | None] = [None] * _DEPTH
        if self._on_gpu:
            self._host = torch.empty(_DEPTH, rows, dtype=torch.int64, pin_memory=True)
            self._events = [torch.cuda.Event() for _ in range(_DEPTH)]

    def copy(self, tokens: torch.Tensor) -> TokenRead:
        """Enqueue the copy of int64 [n], which may be overwritten by the next step."""
        if not self._on_gpu:
            return TokenRead(tokens.clone(), None)
        place, self._next = self._next, (self._next + 1) % _DEPTH
        earlier = self._reads[place]
        if earlier is not None:
            earlier.tokens()  # its memory is about to be used again
        host = self._host[place, : len(tokens)]
        host.copy_(tokens, non_blocking=True)
        self._events[place].record()
        read = self._reads[place] = TokenRead(host, self._events[place])
        return read
