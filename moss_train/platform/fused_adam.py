"""An AdamW with the contract of Transformer Engine's FusedAdam, for machines without it.

megatron-core's DistributedOptimizer saves and loads through that contract: the step count lives in the parameter
group, the state of a parameter holds `exp_avg` and `exp_avg_sq` only. `torch.optim.AdamW` breaks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import adam, adamw


class FusedAdam(torch.optim.Optimizer):
    """AdamW (decoupled weight decay) or, with `adam_w_mode=False`, Adam with L2 regularisation; moments are fp32."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        adam_w_mode: bool = True,
        **_: Any,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "bias_correction": True})
        self.adam_w_mode = adam_w_mode

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; the group's step advances even when it has none."""
        for group in self.param_groups:
            if not group["params"]:
                continue
            group["step"] = group.get("step", 0) + 1
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for param in params:
                state = self.state[param]
                if not state:
                    state["exp_avg"] = torch.zeros_like(param, dtype=torch.float32)
                    state["exp_avg_sq"] = torch.zeros_like(param, dtype=torch.float32)
            self._update(group, params)

    def _update(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        function: Any = adamw.adamw if self.adam_w_mode else adam.adam
        function(
            params,
            [p.grad for p in params],
            [self.state[p]["exp_avg"] for p in params],
            [self.state[p]["exp_avg_sq"] for p in params],
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
    modules[1].HAVE_APEX_OR_TE = True
    modules[1].USING_TE_OPTIMIZER = True
