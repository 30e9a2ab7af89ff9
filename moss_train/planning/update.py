"""Bytes that an update reads and writes for each trained weight of a rank's share."""

from __future__ import annotations

from moss_train.config.optimizer import OptimizerConfig
from moss_train.config.schema import PrecisionConfig
from moss_train.engines.optimizer.bytes import optimizer_bytes


def updated_bytes(optimizer: OptimizerConfig, precision: PrecisionConfig, *, vision: bool = False) -> float:
    """Passes of norm, clipping and step over gradient, weight and states: 42 bytes of AdamW with fp32 states.

    The gradient is read for its norm, read and written by clipping, and read by the step, which reads and writes master and
    moments and writes the weight. Where the master is the weight's lower half, or the weight itself, the weight is read too.
    Copies that an update makes for a moment are written and read. Muon's products are not in it, nor what the host updates.

    Args:
        optimizer: the choices.
        precision: dtype of weights and of reduced gradients.
        vision: a parameter of tower or projector.
    """
    held = optimizer_bytes(optimizer, precision, vision=vision)
    reads_weight = optimizer.master == "remainders" or precision.dtype == "fp32"
    passes = 4 * held.gradient + 2 * (held.master + held.moments + held.average + held.temporary)
    return passes + held.weight * (2 if reads_weight else 1)
