"""The settings of sampling."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import InputError

_LEAST, _MOST = 1e-6, 1e6
_RANGE = "[1e-6, 1e6]"
"""Of what scores are divided by or multiplied with: fp32 holds the results."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How tokens are chosen. The defaults are greedy."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    """Keep the k likeliest tokens, and those as likely as the last of them; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens whose probabilities reach this sum, and those as likely as the last of them."""
    repetition_penalty: float = 1.0
    silence_threshold: float = 0.0
    """Silence is forbidden where its probability is below this; 0 turns the rule off."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, good, rule in (
            ("temperature", _fits(self.temperature), f"lie in {_RANGE} (leave sampling off for greedy decoding)"),
            ("top_k", 0 <= self.top_k < 2**31, "lie in [0, 2**31)"),
            ("top_p", 0 < self.top_p <= 1, "lie in (0, 1]"),
            ("repetition_penalty", _fits(self.repetition_penalty), f"lie in {_RANGE}"),
            ("seed", 0 <= self.seed < 2**63, "lie in [0, 2**63)"),
            ("silence_threshold", 0 <= self.silence_threshold < 1, "lie in [0, 1)"),
        ):
            if not good:
                raise InputError(f"{name} is {getattr(self, name)}; it must {rule}")


def _fits(factor: float) -> bool:
    return _LEAST <= factor <= _MOST
