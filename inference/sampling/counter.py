"""Random numbers that are a function of (seed, counter): nothing is kept between draws, so nothing can get out of step.

The n-th number of a seed is the n-th output of SplitMix64 (Steele, Lea, Flood 2014) started at the mixed seed. Its arithmetic is
that of 64-bit integers, which is the same on every device.
"""

from __future__ import annotations

import torch


def _signed(value: int) -> int:
    """The int64 that has the bits of `value`."""
    return value - (1 << 64) if value >= 1 << 63 else value


GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Zeros come in at the top, as with unsigned integers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finalizer of int64 [...]: a bijection of 64 bits."""
    x = (x ^ _shift_right(x, 30)) * _FIRST
    x = (x ^ _shift_right(x, 27)) * _SECOND
    return x ^ _shift_right(x, 31)


def splitmix(start: torch.Tensor, counter: torch.Tensor) -> torch.Tensor:
    """Output number `counter` (from 0) of SplitMix64 whose state begins at `start`; int64 [...], all 64 bits random."""
    return mix(start + (counter + 1) * GOLDEN)


def uniform(seed: torch.Tensor, counter: torch.Tensor) -> torch.Tensor:
    """fp64 [...] in [0, 1), 53 random bits, of int64 seeds and counters.

    Neighbouring seeds are mixed first: their states would otherwise be a step apart and share numbers.
    """
    return _shift_right(splitmix(mix(seed), counter), 11).double() * 2.0**-53
