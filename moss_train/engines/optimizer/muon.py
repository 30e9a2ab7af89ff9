"""Muon for the matrices of the layers, AdamW for everything else, in one optimizer that megatron-core wraps.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest orthogonal matrix, found with five Newton-Schulz steps. The
update is scaled by 0.2 * sqrt(larger side) (Liu et al. 2025, "Muon is scalable for LLM training"), which gives it the size of
AdamW's, so that one learning rate serves both. What is made orthogonal is the published matrix: queries, keys and values apart,
and whole under tensor parallelism, so that the layout changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.config import TextConfig
from model.conversion.fusion import fuse, put_together, shard, take_apart
from model.conversion.table import Rule

MUON = "muon"
"""Key of a parameter group that tells which of the two methods it is for."""
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_RMS = 0.2


@dataclass(frozen=True)
class Matrix:
    """How a live parameter and the published matrices in it belong together."""

    rule: Rule
    text: TextConfig
    group: Any
    """Tensor-parallel ranks that hold its shares; None where it is whole."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V^T of the singular value decomposition U S V^T, roughly: singular values come out between about 0.7 and 1.2.

    Args:
        matrix: [rows, columns], fp32.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.to(torch.bfloat16 if matrix.is_cuda else torch.float32)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


def muon_update(momentum: Tensor, matrix: Matrix) -> Tensor:
    """The update of a parameter's share of one tensor-parallel rank, of learning rate 1.

    Args:
        momentum: of the share, fp32; all ranks of the group call with theirs.
    """
    size, rank = (1, 0) if matrix.group is None else (matrix.group.size(), matrix.group.rank())
    shares = [momentum]
    if size > 1 and matrix.rule.sharding != "replicated":
        shares = [torch.empty_like(momentum) for _ in range(size)]
        dist.all_gather(shares, momentum.contiguous(), group=matrix.group)
    whole = put_together(matrix.rule, shares)
    parts = [
        orthogonalised(part) * (_RMS * max(part.shape) ** 0.5)
        for part in take_apart(matrix.rule, whole.contiguous(), matrix.text)
    ]
    return shard(matrix.rule, fuse(matrix.rule, parts, matrix.text, size), size, rank)


class Muon(torch.optim.Optimizer):
    """Both methods; a group's `muon` says which is its.

    Args:
        groups: parameter groups.
        matrices: of every parameter in groups for Muon, by its id.
        momentum: of Muon, in Nesterov's form.
        betas, eps: of AdamW.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        matrices: dict[int, Matrix],
        momentum: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        super().__init__(groups, {"lr": 1.0, "weight_decay": 0.0})
        self._matrices = matrices
        self._momentum, self._betas, self._eps = momentum, betas, eps

    def initialise_states(self) -> None:
        """Zero momentum and moments."""
        for group in self.param_groups:
            for parameter in group["params"]:
                for name in ("momentum_buffer",) if group[MUON] else ("exp_avg", "exp_avg_sq"):
                    if name not in self.state[parameter]:
                        self.state[parameter][name] = torch.zeros_like(parameter, dtype=torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        self.initialise_states()
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    method = self._muon if group[MUON] else self._adam
                    method(parameter, parameter.grad.float(), self.state[parameter], group)

    def _muon(self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        momentum = state["momentum_buffer"].mul_(self._momentum).add_(gradient)
        update = muon_update(gradient.add(momentum, alpha=self._momentum), self._matrices[id(parameter)])
        parameter.add_(update, alpha=-group["lr"])

    def _adam(self, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
        (beta1, beta2), step = self._betas, group["step"]
        first = state["exp_avg"].lerp_(gradient, 1.0 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        scale = (second / (1.0 - beta2**step)).sqrt_().add_(self._eps)
        parameter.addcdiv_(first, scale, value=-group["lr"] / (1.0 - beta1**step))


def muon_matrix(name: str, dimensions: int) -> bool:
    """Whether Muon updates a parameter: a matrix of a layer or the projector, no embedding, no head, no adapter.

    Args:
        name: over the whole model.
        dimensions: of the parameter.
    """
    inside = name.startswith(("decoder.layers.", "vision_model.transformer.", "vision_model.global_transformer.", "multi_modal_"))
    return dimensions == 2 and inside and name.endswith(".weight") and ".adapter." not in name


def use_muon(
    optimizers: Iterable[Any], matrices: dict[int, Matrix], momentum: float, betas: tuple[float, float], eps: float
) -> None:
    """Put Muon into megatron-core's wrappers, which were made with SGD and keep fp32 weights of bf16 models.

    Args:
        optimizers: megatron-core's, unchained.
        matrices: by id of the model's parameter.
    """
    for optimizer in optimizers:
        if optimizer.is_stub_optimizer:
            continue
        of_main = dict(matrices)
        for parameters, copies in zip(
            getattr(optimizer, "float16_groups", []), getattr(optimizer, "fp32_from_float16_groups", []), strict=True
        ):
            of_main |= {id(c): matrices[id(p)] for p, c in zip(parameters, copies, strict=True) if id(p) in matrices}
        optimizer.optimizer = Muon(optimizer.optimizer.param_groups, of_main, momentum, betas, eps)
        optimizer.init_state_fn = lambda inner, config=None: inner.initialise_states()
