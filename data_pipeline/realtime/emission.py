"""How fast the assistant speaks: a rate that is drawn for each dialogue, and the tokens that fit into each frame's slot."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from model.errors import InputError

CountTokens = Callable[[str], int]
"""Tokens of a text."""

MODES = ("list", "uniform", "log_normal", "speech")
_SMALL = 1e-9


@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """Where the tokens a second of a dialogue come from."""

    mode: str = "list"
    """list: one of `rates`. uniform, log_normal: between `low` and `high`. speech: words a second between `low_words` and
    `high_words`, times `tokens_per_word`."""
    rates: tuple[float, ...] = (20.0,)
    """Tokens a second, for mode list."""
    weights: tuple[float, ...] = ()
    """Of `rates`; empty means that all are drawn alike."""
    low: float = 5.0
    """Tokens a second. Mode log_normal has 95 % of its mass between `low` and `high` and is cut off there."""
    high: float = 60.0
    low_words: float = 2.5
    high_words: float = 4.0
    tokens_per_word: float = 1.3
    """English with a vocabulary of 128,000 entries; measure it for another tokenizer or language."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"emission mode is {self.mode!r}; use one of {', '.join(MODES)}")
        if self.mode == "list":
            _check_list(self.rates, self.weights)
        low, high = (self.low_words, self.high_words) if self.mode == "speech" else (self.low, self.high)
        if self.mode != "list" and not 0 < low <= high < math.inf:
            raise InputError(f"emission range is {low:g}..{high:g}; it must rise from above 0")
        if self.mode == "speech" and not 0 < self.tokens_per_word < math.inf:
            raise InputError(f"emission tokens_per_word is {self.tokens_per_word:g}; it must be above 0")


def _check_list(rates: tuple[float, ...], weights: tuple[float, ...]) -> None:
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise InputError(f"emission rates are {list(rates)}; give at least one number of tokens a second above 0")
    if weights and (len(weights) != len(rates) or min(weights) < 0 or not 0 < sum(weights) < math.inf):
        raise InputError(f"emission weights are {list(weights)} for {len(rates)} rates; give one for each, not all of them 0")


def draw_rate(rng: random.Random, config: RateConfig) -> float:
    """Tokens a second for one dialogue, rounded to three digits so that a row holds exactly what was used."""
    if config.mode == "list":
        return float(rng.choices(config.rates, weights=config.weights or None)[0])
    if config.mode == "speech":
        return round(rng.uniform(config.low_words, config.high_words) * config.tokens_per_word, 3)
    if config.mode == "uniform":
        return round(rng.uniform(config.low, config.high), 3)
    middle = (math.log(config.low) + math.log(config.high)) / 2
    spread = (math.log(config.high) - math.log(config.low)) / (2 * 1.96)
    drawn = math.exp(rng.gauss(middle, spread))
    return round(min(max(drawn, config.low), config.high), 3)


class SlotBudget:
    """Tokens that may be said in each slot while somebody speaks.

    Every slot adds `tokens_per_second / fps`. What a slot leaves over is carried to the next one for as long as the speech
    goes on, fractions included, so n slots on end hold n * tokens_per_second / fps tokens, rounded up: the first slot of a
    speech gets a whole token where it is worth a fraction, so that speech begins at once. In silence nothing is saved up.

    Attributes:
        per_slot: tokens, a fraction.
        most: whole tokens of the first slot of a speech.
    """

    def __init__(self, tokens_per_second: float, fps: float) -> None:
        if not (0 < tokens_per_second < math.inf and 0 < fps < math.inf):
            raise InputError(f"a rate of {tokens_per_second:g} tokens and {fps:g} frames a second; both must be above 0")
        self.per_slot = tokens_per_second / fps
        self.most = max(1, math.ceil(self.per_slot - _SMALL))
        self._credit = 0.0
        self._speaking = False

    def open_slot(self) -> int:
        """Whole tokens that the next slot may hold."""
        self._credit += self.per_slot
        if not self._speaking:
            self._credit = float(self.most)
        return max(0, math.floor(self._credit + _SMALL))

    def close_slot(self, tokens: int, goes_on: bool) -> None:
        """Book what was said in the slot; with nothing left to say, what is over lapses (and so does a debt)."""
        self._credit -= tokens
        self._speaking = goes_on
        if not goes_on:
            self._credit = 0.0
