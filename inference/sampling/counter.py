"""Random numbers that are a function of (seed, counter): nothing is kept between draws, so nothing can get out of step.

The n-th number of a seed is the n-th output of SplitMix64 (Steele, Lea, Flood 2014) started at the mixed seed. The host computes
it: one number a token, where a GPU would need thirty launches for it.
"""

from __future__ import annotations

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    """SplitMix64's finalizer: a bijection of 64 bits."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


def splitmix(start: int, counter: int) -> int:
    """Output number `counter` (from 0) of SplitMix64 whose state begins at `start`: all 64 bits random."""
    return mix((start + (counter + 1) * _GOLDEN) & _WORD)


def uniform(seed: int, counter: int) -> float:
    """In [0, 1), 53 random bits.

    Neighbouring seeds are mixed first: their states would otherwise be a step apart and share numbers.
    """
    return (splitmix(mix(seed), counter) >> 11) * 2.0**-53
