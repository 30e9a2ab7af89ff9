"""What a narrower precision changes in what a model says: its logits and greedy tokens held against those of the whole weights.

The whole model decodes greedily; the narrow one is fed the same tokens, so that every position is compared on equal terms. Up to
the first token on which they disagree, this is what the narrow model would have said by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine
from model.errors import InputError


@dataclass(frozen=True)
class Case:
    """A prompt and its frames."""

    name: str
    prompt: Sequence[int]
    frames: torch.Tensor | None = None
    """uint8 [F, 3, S, S], one for each image token of the prompt."""


@dataclass(frozen=True)
class Decoded:
    """A greedy reply."""

    tokens: list[int]
    logits: torch.Tensor = field(repr=False)
    """fp32 [tokens, vocab_size] on the CPU, those that each token was chosen from."""


@dataclass(frozen=True)
class PrecisionEffect:
    """One model held against the whole one on one case."""

    case: str
    tokens: int
    cosine_mean: float
    """Of the logits, less their mean."""
    cosine_least: float
    kl_mean: float
    """Nats, of the whole model's distribution from the narrow one's, over tokens."""
    kl_most: float
    greedy_agreement: float
    """Share of tokens that both choose."""
    first_difference: int | None
    """Number of the first token that the narrow model chooses otherwise; None: none."""


def decode(engine: StepEngine, case: Case, tokens: int) -> Decoded:
    """A greedy reply of so many tokens, whatever they are.

    Raises:
        InputError: the logits are not finite.
    """
    logits = _begin(engine, case, cache := engine.new_cache())
    rows, reply = [], []
    for number in range(tokens):
        rows.append(_finite(logits, case))
        reply.append(int(logits.argmax(-1)))
        if number + 1 < tokens:
            logits = engine.step(cache, reply[-1:])
    return Decoded(reply, torch.cat(rows))


def follow(engine: StepEngine, case: Case, tokens: Sequence[int]) -> torch.Tensor:
    """Logits fp32 [tokens, vocab_size] on the CPU of a model that is fed this reply one token after the other."""
    logits = _begin(engine, case, cache := engine.new_cache())
    rows = [_finite(logits, case)]
    for token in tokens[:-1]:
        rows.append(_finite(engine.step(cache, [token]), case))
    return torch.cat(rows)


def compare(case: str, whole: torch.Tensor, narrow: torch.Tensor) -> PrecisionEffect:
    """From logits [tokens, vocab_size] of both. The cosine is that of logits less their mean, which changes no probability."""
    cosine = torch.cosine_similarity(_centred(whole), _centred(narrow), dim=-1)
    log_p, log_q = whole.double().log_softmax(-1), narrow.double().log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)
    agree = whole.argmax(-1) == narrow.argmax(-1)
    return PrecisionEffect(
        case=case,
        tokens=len(whole),
        cosine_mean=float(cosine.mean()),
        cosine_least=float(cosine.min()),
        kl_mean=float(kl.mean()),
        kl_most=float(kl.max()),
        greedy_agreement=float(agree.double().mean()),
        first_difference=None if bool(agree.all()) else int((~agree).int().argmax()),
    )


def _centred(logits: torch.Tensor) -> torch.Tensor:
    return logits.double() - logits.double().mean(-1, keepdim=True)


def _begin(engine: StepEngine, case: Case, cache: SessionCache) -> torch.Tensor:
    features = None if case.frames is None else engine.encode(case.frames)
    return engine.step(cache, case.prompt, features)


def _finite(logits: torch.Tensor, case: Case) -> torch.Tensor:
    if not bool(logits.isfinite().all()):
        raise InputError(f"logits of {case.name!r} are not finite; check the checkpoint's weights, or use --dtype bf16 or fp32")
    return logits.cpu()
