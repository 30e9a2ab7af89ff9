"""A running average of the weights (EMA) in fp32, kept among the optimizer's states: sharded, saved and loaded as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from moss_train.engines.optimizer.states import fp32_weight, initialise, main_weights

AVERAGE = "ema"
"""Name of the state; in a checkpoint `optimizer.ema.<weight>`."""


class WeightAverage:
    """`average = d * average + (1 - d) * weight` after every update, from the weights that training starts with.

    `d` is min(decay, (1 + n) / (10 + n)) at update n, so that a short run is not held to its start (the rule of TensorFlow's
    ExponentialMovingAverage with `num_updates`).

    Args:
        optimizers: megatron-core's, unchained; their states are made here.
        decay: the largest `d`.
    """

    def __init__(self, optimizers: Sequence[Any], decay: float) -> None:
        self._optimizers = list(optimizers)
        self._decay = decay
        for optimizer in self._optimizers:
            if optimizer.init_state_fn is not None:
                optimizer.init_state_fn = _with_average(optimizer.init_state_fn)
        initialise(self._optimizers)

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take in the weights of update `updates`, counted from 1."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        for state, weight in main_weights(self._optimizers):
            average = state[AVERAGE]
            average.lerp_(weight.to(average.device), 1.0 - decay)


def _with_average(make: Any) -> Any:
    def initial(inner: Any, config: Any = None) -> None:
        make(inner, config)
        for group in inner.param_groups:
            for parameter in group["params"]:
                state = inner.state[parameter]
                if AVERAGE not in state:
                    state[AVERAGE] = fp32_weight(parameter, state).to(parameter.device, copy=True)

    return initial
