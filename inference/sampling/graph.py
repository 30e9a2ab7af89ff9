"""Sampling in buffers that stay where they are, so that it can be part of a CUDA graph. The same code runs on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.sampling.path import SamplingPath
from inference.sampling.rules import COLUMNS, Rows, choose
from inference.sampling.sampler import Sampler, packed_rows, sampling_path
from model.errors import InputError

_STAGES = 4
"""Steps that may be under way at once before the host waits for the first one's copy."""


class GraphSampler:
    """Chooses tokens for up to `rows` sessions.

    Each step: `load` on the host, then `sample` (or the replay of a graph that holds it), then, once `tokens` has been read,
    `Sampler.accept` of every token.

    Args:
        rows: the most sessions of a step.
        vocab_size: columns of the logits.
        device: where the logits are.

    Attributes:
        tokens: int64 [rows], what was chosen; -1 where none could be.
        fed: int64 [rows], the same within the vocabulary: what a following step may look up without being told.
    """

    def __init__(self, rows: int, vocab_size: int, device: torch.device | str) -> None:
        self.rows, self.vocab_size, self.device = rows, vocab_size, torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.tokens = torch.zeros(rows, dtype=torch.int64, device=self.device)
        self.fed = torch.zeros(rows, dtype=torch.int64, device=self.device)
        self._packed = torch.zeros(rows, COLUMNS, dtype=torch.int64, device=self.device)
        self._packed.copy_(packed_rows([None] * rows))
        self._flags = torch.zeros(rows, vocab_size, dtype=torch.uint8, device=self.device)
        self._blank = torch.zeros(vocab_size, dtype=torch.uint8, device=self.device)
        pinned = self.device.type == "cuda"
        self._staging = [torch.zeros(rows, COLUMNS, dtype=torch.int64, pin_memory=pinned) for _ in range(_STAGES)]
        self._copied = [torch.cuda.Event() for _ in range(_STAGES)] if pinned else []
        self._stage = 0
        # The sampler itself is kept: an id could be that of another one by now.
        self._loaded: list[tuple[Sampler | None, int]] = [(None, 0)] * rows

    @torch.inference_mode()
    def load(self, samplers: Sequence[Sampler | None], extra: Sequence[int] | None = None) -> SamplingPath:
        """Put settings, counters and flags of a step's rows into the buffers: one copy, and one of changed flags.

        Args:
            samplers: of the first rows, one each; None takes the best token.
            extra: for each, tokens (0 or 1) chosen earlier that it has not accepted yet, for the random number.

        Returns:
            The arithmetic that these rows need, for `sample`; a graph is captured for each.

        Raises:
            InputError: more samplers than rows.
        """
        count = len(samplers)
        if count > self.rows:
            raise InputError(f"a step has {count} sessions, its buffers {self.rows} rows; make them for more")
        self._send(packed_rows(samplers, extra))
        places, flags = [], []
        for row, sampler in enumerate(samplers):
            version = 0 if sampler is None else sampler.version
            known, seen_version = self._loaded[row]
            if known is not sampler or seen_version != version:
                places.append(self._flags[row])
                flags.append(self._blank if sampler is None else sampler.flags(self.device, self.vocab_size))
                self._loaded[row] = (sampler, version)
        if places:
            torch._foreach_copy_(places, flags)
        return sampling_path(samplers)

    def _send(self, packed: torch.Tensor) -> None:
        """Copy rows into the buffer behind the host's back."""
        staging, count = self._staging[self._stage], len(packed)
        if self._copied:
            self._copied[self._stage].synchronize()  # of four steps ago: done, unless very many are under way
        staging[:count] = packed
        self._packed[:count].copy_(staging[:count], non_blocking=True)
        if self._copied:
            self._copied[self._stage].record()
        self._stage = (self._stage + 1) % _STAGES

    @torch.inference_mode()
    def sample(self, logits: torch.Tensor, path: SamplingPath, following: torch.Tensor | None = None) -> torch.Tensor:
        """Choose for the first rows; only tensor arithmetic of fixed shapes on the loaded buffers, which it does not change.

        Args:
            logits: fp32 [n, vocab_size], n at most `rows`.
            path: from `load`; fixed inside a graph.
            following: int64 [n], the tokens of `extra`, for the repetition penalty; below 0: none. Inside a graph, a buffer that
                stays where it is.

        Returns:
            The first n of `tokens`.
        """
        count = logits.shape[0]
        rows = Rows(self._packed[:count], self._flags[:count], following)
        self.tokens[:count].copy_(choose(logits, rows, path))
        torch.clamp(self.tokens[:count], min=0, out=self.fed[:count])
        return self.tokens[:count]
