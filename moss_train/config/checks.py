"""What the values of a configuration are checked with: each raises an InputError that names the field and its value."""

from __future__ import annotations

import math

from model.errors import InputError

MOST_SECONDS = 1_000_000
"""Waits beyond it do not fit what the system counts them in."""


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; use one of {', '.join(allowed)}")


def at_least(name: str, value: float, least: float) -> None:
    if not least <= value < math.inf:  # no number is not at least anything
        raise InputError(f"{name} is {value}; it must be at least {least}")


def above_zero(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; it must be above 0")


def finite_seconds(name: str, value: float) -> None:
    if not 0 < value <= MOST_SECONDS:
        raise InputError(f"{name} is {value}; it must be above 0 and at most {MOST_SECONDS}")


def share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}; it must be between 0 and 1")
