"""Sampling restated with transformers' processors and one float of the counter's uniform numbers."""

from __future__ import annotations

import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from inference.sampling import SamplingConfig
from inference.sampling.counter import uniform


def processed(logits: torch.Tensor, config: SamplingConfig, said: list[int]) -> torch.Tensor:
    """Probabilities [V] in fp64 after transformers' processors, in the order in which its `generate` applies them."""
    scores = logits[None].clone()
    ids = torch.tensor([said], dtype=torch.int64)
    if config.repetition_penalty != 1 and said:
        scores = RepetitionPenaltyLogitsProcessor(config.repetition_penalty)(ids, scores)
    if config.do_sample:
        scores = TemperatureLogitsWarper(config.temperature)(ids, scores)
        if config.top_k:
            scores = TopKLogitsWarper(config.top_k)(ids, scores)
        if config.top_p < 1:
            scores = TopPLogitsWarper(config.top_p)(ids, scores)
    return torch.softmax(scores[0].double(), -1)


def drawn(probabilities: torch.Tensor, seed: int, accepted: int) -> tuple[int, float]:
    """The token at the uniform number of (seed, accepted), and how far from its interval's ends that number is."""
    u = uniform(seed, accepted)
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), probabilities.cumsum(0)])
    token = min(int(torch.searchsorted(edges[1:], u, right=True)), len(probabilities) - 1)
    return token, min(abs(u - float(edges[token])), abs(u - float(edges[token + 1])))
