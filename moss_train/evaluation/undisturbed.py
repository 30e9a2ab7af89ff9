"""What an evaluation of other code must leave as it was for training to go on as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Random states of this process come back; memory that torch keeps for later is given back to the GPU."""
    states = random.getstate(), torch.get_rng_state()
    of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        random.setstate(states[0])
        torch.set_rng_state(states[1])
        if of_device is not None:
            torch.cuda.set_rng_state(of_device, device)
            torch.cuda.empty_cache()
