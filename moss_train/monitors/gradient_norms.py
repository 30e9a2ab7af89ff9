"""Gradient norm by module, the same in every layout."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate

from model.config import VideoMllamaConfig
from moss_train.engines.models import Models
from moss_train.engines.optimization import Optimization
from moss_train.engines.optimizer.modules import named
from moss_train.monitors.base import Monitor, Update
from moss_train.parallel.layout import ParallelLayout

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.")
QUARTERS = 4


def modules_of(config: VideoMllamaConfig) -> list[str]:
    """All modules of a model: the tower and its layers beside the text layers by quarter of the decoder's depth."""
    layers = [f"text_layers_{_quarter(layer, config)}" for layer in range(config.text.num_hidden_layers)]
    return ["vision_tower", "projector", "dense_head", "embedding", *dict.fromkeys(layers), "cross_layers", "gates", "head"]


def module_of(name: str, config: VideoMllamaConfig) -> str:
    """The module of a parameter.

    Args:
        name: over the whole model, as `named` gives it.
    """
    if layer := _LAYER.match(name):
        if name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate")):
            return "gates"
        index = int(layer[1])
        return "cross_layers" if index in config.text.cross_attention_layers else f"text_layers_{_quarter(index, config)}"
    if name.startswith("multi_modal_projector."):
        return "projector"
    if name.startswith("dense_head."):
        return "dense_head"
    if name.startswith("embedding."):
        return "embedding"
    return "head" if name.startswith(("output_layer.", "decoder.final_layernorm.")) else "vision_tower"


def _quarter(layer: int, config: VideoMllamaConfig) -> str:
    return f"q{1 + QUARTERS * layer // config.text.num_hidden_layers}"


@dataclass(frozen=True)
class _Share:
    """A parameter's gradient as far as this rank counts it."""

    parameter: torch.nn.Parameter
    begin: int
    end: int
    module: int


class GradientNorms(Monitor):
    """Sums squares of main gradients where they lie, then over the world: one small reduction every so many steps.

    Each value is counted once. The distributed optimizer's ranks have a range of every parameter each. Without it gradients
    are equal on all replicas (the vision encoder's on all ranks), and one of them counts. What tensor-parallel ranks
    hold alike counts on the first of them.
    """

    every_rank = True

    def __init__(self, models: Models, optimization: Optimization, layout: ParallelLayout, every: int) -> None:
        self._every = every
        self._layout = layout
        self._names = modules_of(models.config)
        places = {name: i for i, name in enumerate(self._names)}
        ranges = _ranges(optimization)
        vision = {id(parameter) for parameter in models.unit.parameters()}
        first = layout.place.data == 0 and layout.place.context == 0
        self._shares: list[_Share] = []
        for name, parameter in named(optimization.decoder, models.unit):
            if not parameter.requires_grad:
                continue
            in_vision = id(parameter) in vision
            if not in_vision and not param_is_not_tensor_parallel_duplicate(parameter):
                continue
            begin, end = 0, parameter.numel()
            if ranges is not None:
                begin, end = ranges.get(id(parameter), (0, 0))
            elif not (layout.rank == 0 if in_vision else first):
                continue
            if end > begin:
                self._shares.append(_Share(parameter, begin, end, places[module_of(name, models.config)]))
        self._where = torch.tensor([share.module for share in self._shares], dtype=torch.int64, device=layout.device)
        self._norms: dict[str, float] = {}

    def prepared(self, update: Update) -> None:
        self._norms = {}
        if update.step % self._every and update.step > 1:  # a continued run measures in the steps of one that never stopped
            return
        squares = torch.zeros(len(self._names), dtype=torch.float64, device=self._layout.device)
        if self._shares:
            norms = torch.stack(torch._foreach_norm(list(self._gradients())))  # [shares]
            squares.index_add_(0, self._where, norms.double() ** 2)
        if self._layout.world_size > 1:
            dist.all_reduce(squares)
        self._norms = {
            name: math.sqrt(square) for name, square in zip(self._names, squares.tolist(), strict=True) if square != 0.0
        }

    def measured(self, update: Update) -> dict[str, Any]:
        return {"grad_norms": self._norms} if self._norms else {}

    def _gradients(self) -> Iterator[torch.Tensor]:
        """fp32 pieces, one a share."""
        for share in self._shares:
            yield share.parameter.main_grad.view(-1)[share.begin : share.end].float()  # type: ignore[attr-defined]


def _ranges(optimization: Optimization) -> dict[int, tuple[int, int]] | None:
    """By a parameter's id, the elements that this rank's distributed optimizers own; None without such an optimizer."""
    if not optimization.decoder[0].ddp_config.use_distributed_optimizer:
        return None
    ranges: dict[int, tuple[int, int]] = {}
    for optimizer in optimization.optimizer.chained_optimizers:
        for parameter in getattr(optimizer, "model_param_gbuf_map", {}):  # a rank without trained parameters has none
            own = optimizer._get_model_param_range_map(parameter)["param"]
            ranges[id(parameter)] = (own.start, own.end)
    return ranges
