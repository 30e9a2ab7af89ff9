"""Scales of fp8 rows: powers of two, so that moving a row to another scale changes exponents only."""

from __future__ import annotations

import torch
from torch import Tensor

E4M3_MAX = 448.0
"""Largest finite value of float8_e4m3fn."""

LEAST = 2.0**-100
"""Scale of a row of zeros, and the smallest: the inverse and every product with it stay finite."""

_MANTISSA = 0x007FFFFF
_EXPONENT = 0x7F800000


def power_of_two_scale(amax: Tensor) -> Tensor:
    """The smallest power of two at which a row's values fit into float8_e4m3fn, never below `LEAST`.

    Args:
        amax: fp32 of any shape, the largest absolute value of each row.

    Returns:
        fp32 of the same shape: a value is its fp8 number times this. Infinity or NaN where amax is, so that neither is hidden.
    """
    bits = (amax * (1 / E4M3_MAX)).view(torch.int32)
    up = ((bits + _MANTISSA) & _EXPONENT).view(torch.float32)
    # The mantissa of a NaN would be rounded away.
    return torch.where(amax.isfinite(), up.clamp_min(LEAST), amax)


def round_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [..., n] -> (float8_e4m3fn [..., n], fp32 scales [..., 1]), rounded to nearest; the torch form."""
    scale = power_of_two_scale(x.detach().abs().amax(-1, keepdim=True).float())
    return (x.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale
