"""Where the checks run: compiled on a GPU, interpreted on a CPU."""

from __future__ import annotations

import os

import torch
from hypothesis import HealthCheck, settings

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
INTERPRETED = DEVICE == "cpu"
few = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)

torch.set_num_threads(1)
if INTERPRETED:
    from tests.inference.kernels.forms.interpreter import correct_interpreter

    correct_interpreter()
