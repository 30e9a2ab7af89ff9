"""Gradient norm by module where DeepSpeed shards the gradients."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from moss_train.engines.deepspeed.optimization import DeepSpeedOptimization
from moss_train.engines.models import Models
from moss_train.engines.optimizer.modules import named
from moss_train.monitors.gradient_norms import GradientNorms, module_of, modules_of
from moss_train.parallel.layout import ParallelLayout


class ShardedGradientNorms(GradientNorms):
    """Every rank has a part of the reduced gradients, and no value twice."""

    def __init__(self, models: Models, optimization: DeepSpeedOptimization, layout: ParallelLayout, every: int) -> None:
        self._every = every
        self._layout = layout
        self._names = modules_of(models.config)
        modules = {id(p): self._names.index(module_of(name, models.config)) for name, p in named(models.chunks, models.unit)}
        self._optimizer = optimization.optimizer
        self._shares = self._optimizer.owned()  # type: ignore[assignment]
        self._where = torch.tensor([modules[id(p)] for p in self._shares], dtype=torch.int64, device=layout.device)
        self._norms = {}
        self._first = True

    def _gradients(self) -> Iterator[torch.Tensor]:
        for parameter in self._optimizer.owned():
            yield self._optimizer.gradient(parameter).to(self._layout.device).float()
