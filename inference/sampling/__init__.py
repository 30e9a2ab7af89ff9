"""Choosing the next token of many sessions at once, on the device that the logits are on.

A `Sampler` is one session's rules and state; `choose_rows` applies many of them in one call; `GraphSampler` does the same in
static buffers, for CUDA graphs.
"""

from __future__ import annotations

from inference.sampling.config import SamplingConfig
from inference.sampling.graph import GraphSampler
from inference.sampling.path import SamplingPath
from inference.sampling.sampler import Sampler, SamplerState, choose_rows

__all__ = ["GraphSampler", "Sampler", "SamplerState", "SamplingConfig", "SamplingPath", "choose_rows"]
