"""An AdamW with the contract of Transformer Engine's FusedAdam, for machines without it.

megatron-core's DistributedOptimizer works through that contract: the step count lives in the parameter group, the state of a
parameter holds `exp_avg` and `exp_avg_sq` and, where the optimizer keeps the weights of a bf16 model itself, `master_param`.
`torch.optim.AdamW` breaks it. fp8 and fp16 moments are Transformer Engine's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import adam, adamw

from moss_train.platform.remainders import split, whole

MASTER = "master_param"


class FusedAdam(torch.optim.Optimizer):
    """AdamW (decoupled weight decay) or, with `adam_w_mode=False`, Adam with L2 regularisation. It computes in fp32.

    Args:
        params: parameters or groups.
        exp_avg_dtype, exp_avg_sq_dtype: fp32 | bf16, of the stored moments.
        master_weights: keep fp32 weights of bf16 parameters.
        store_param_remainders: keep their lower halves instead.
        use_decoupled_grad: gradients are in `decoupled_grad`, of any dtype.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
        exp_avg_dtype: torch.dtype = torch.float32,
        exp_avg_sq_dtype: torch.dtype = torch.float32,
        master_weights: bool = False,
        store_param_remainders: bool = False,
        use_decoupled_grad: bool = False,
        **_: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "bias_correction": True})
        self.adam_w_mode = adam_w_mode
        self.master_weights = master_weights
        self.store_param_remainders = store_param_remainders
        self.use_decoupled_grad = use_decoupled_grad
        self._dtypes = {"exp_avg": exp_avg_dtype, "exp_avg_sq": exp_avg_sq_dtype}
        self._scales: dict[Tensor, dict[str, Tensor]] = {}

    def initialize_state(self, param: Tensor, store_param_remainders: bool = False) -> None:
        """Zero moments, and the weight or its remainder where this optimizer keeps it."""
        state = self.state[param]
        for name, dtype in self._dtypes.items():
            state[name] = torch.zeros_like(param, dtype=dtype)
        if self.master_weights and param.dtype != torch.float32:
            keeps = store_param_remainders
            state[MASTER] = torch.zeros_like(param, dtype=torch.int16) if keeps else param.detach().float().clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; the group's step advances even when it has none."""
        for group in self.param_groups:
            if not group["params"]:
                continue
            group["step"] = group.get("step", 0) + 1
            params = [p for p in group["params"] if self._gradient(p) is not None]
            if not params:
                continue
            for param in params:
                if not self.state[param]:
                    self.initialize_state(param, self.store_param_remainders and param.dtype == torch.bfloat16)
            self._update(group, params)

    def _gradient(self, param: Tensor) -> Tensor | None:
        found: Tensor | None = getattr(param, "decoupled_grad", None) if self.use_decoupled_grad else param.grad
        return found

    def _weight(self, param: Tensor) -> Tensor:
        """The fp32 weight that is updated; the parameter itself where it is fp32."""
        master = self.state[param].get(MASTER)
        if master is None:
            return param if param.dtype == torch.float32 else param.float()
        return whole(param.detach(), master) if master.dtype == torch.int16 else master

    def _put_back(self, param: Tensor, weight: Tensor, moments: dict[str, Tensor]) -> None:
        state = self.state[param]
        for name, values in moments.items():
            if values is not state[name]:
                state[name].copy_(values)
        if weight is param:
            return
        master = state.get(MASTER)
        if master is not None and master.dtype == torch.int16:
            nearest, remainder = split(weight)
            param.copy_(nearest)
            master.copy_(remainder)
        else:
            param.copy_(weight)

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        function: Any = adamw.adamw if self.adam_w_mode else adam.adam
        weights = [self._weight(p) for p in params]
        moments = [{name: self.state[p][name].float() for name in self._dtypes} for p in params]
        function(
            weights,
            [self._gradient(p).float() for p in params],  # type: ignore[union-attr]
            [m["exp_avg"] for m in moments],
            [m["exp_avg_sq"] for m in moments],
            [],
            [torch.tensor(float(group["step"] - 1)) for _ in params],  # advanced in place by the call
            foreach=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for param, weight, moment in zip(params, weights, moments, strict=True):
            self._put_back(param, weight, moment)


def install() -> None:
    """Give megatron-core this optimizer where neither Transformer Engine nor Apex is installed."""
    import megatron.core.optimizer as optimizers
    import megatron.core.optimizer.distrib_optimizer as distributed

    modules: list[Any] = [optimizers, distributed]
    if not modules[0].USING_PYTORCH_OPTIMIZER:
        return
    for module in modules:
        module.Adam = FusedAdam
    modules[0].USING_PYTORCH_OPTIMIZER = False
    modules[0].is_te_min_version = lambda *_, **__: True  # asked there for one thing only: may remainders be passed on
    modules[1].HAVE_APEX_OR_TE = True
    modules[1].USING_TE_OPTIMIZER = True
