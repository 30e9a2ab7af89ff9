"""The settings of sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.errors import InputError


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
            ("temperature", 0 < self.temperature < math.inf, "be above 0 (leave sampling off for greedy decoding)"),
            ("top_k", self.top_k >= 0, "be 0 or more"),
            ("top_p", 0 < self.top_p <= 1, "lie in (0, 1]"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "be above 0 and finite"),
            ("seed", 0 <= self.seed < 2**63, "lie in [0, 2**63)"),
            ("silence_threshold", 0 <= self.silence_threshold < 1, "lie in [0, 1)"),
        ):
            if not good:
                raise InputError(f"{name} is {getattr(self, name)}; it must {rule}")
