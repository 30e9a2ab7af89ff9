"""Choosing the next token from logits: greedy or sampled, with bans and the silence threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How tokens are chosen. The defaults are greedy."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens whose probabilities reach this sum."""
    repetition_penalty: float = 1.0
    silence_threshold: float = 0.0
    """Silence is forbidden where its probability is below this; 0 turns the rule off."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, good, rule in (
            ("temperature", 0 < self.temperature < math.inf, "be above 0 (leave sampling off for greedy decoding)"),
            ("top_k", self.top_k >= 0, "be 0 or more"),
            ("top_p", 0 < self.top_p <= 1, "lie in (0, 1]"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "be above 0 and finite"),
            ("seed", 0 <= self.seed < 2**63, "lie in [0, 2**63)"),
            ("silence_threshold", 0 <= self.silence_threshold < 1, "lie in [0, 1)"),
        ):
            if not good:
                raise InputError(f"{name} is {getattr(self, name)}; it must {rule}")


class Sampler:
    """Chooses tokens of one session; its random stream starts at the config's seed.

    Args:
        config: how to choose.
        banned: ids that are never chosen.
        silence_id: the silence token, for the threshold; None where there is none.
    """

    def __init__(self, config: SamplingConfig, *, banned: Iterable[int] = (), silence_id: int | None = None) -> None:
        self.config = config
        self.silence_id = silence_id
        self._banned = torch.tensor(sorted(set(banned)), dtype=torch.int64)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._seen: set[int] = set()

    def choose(self, logits: torch.Tensor) -> int:
        """The next token.

        Args:
            logits: fp32 [vocab_size] or [1, vocab_size]; left as it is.
        """
        scores = logits.reshape(-1).cpu().clone()
        banned = self._banned[self._banned < scores.shape[0]]
        scores[banned] = float("-inf")
        config = self.config
        silence, threshold = self.silence_id, config.silence_threshold
        if threshold > 0 and silence is not None and float(torch.softmax(scores, -1)[silence]) < threshold:
            scores[silence] = float("-inf")
        if config.repetition_penalty != 1.0 and self._seen:
            seen = torch.tensor(sorted(self._seen), dtype=torch.int64)
            old = scores[seen]
            scores[seen] = torch.where(old < 0, old * config.repetition_penalty, old / config.repetition_penalty)
        token = self._draw(scores) if config.do_sample else int(scores.argmax())
        self.remember([token])
        return token

    def remember(self, tokens: Iterable[int]) -> None:
        """Count tokens as said, for the repetition penalty (the prompt counts too)."""
        if self.config.repetition_penalty != 1.0:
            self._seen.update(tokens)

    def _draw(self, scores: torch.Tensor) -> int:
        config = self.config
        scores = scores / config.temperature
        if 0 < config.top_k < scores.shape[0]:
            scores[scores < scores.topk(config.top_k).values[-1]] = float("-inf")
        if config.top_p < 1:
            ordered, index = scores.sort(descending=True)
            before = torch.softmax(ordered, -1).cumsum(-1) - torch.softmax(ordered, -1)
            scores[index[before >= config.top_p]] = float("-inf")
        return int(torch.multinomial(torch.softmax(scores, -1), 1, generator=self._generator))
