"""Gradients, optimizer states and updates of a model that DeepSpeed runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from model.errors import InputError
from moss_train.config.schema import OptimizerConfig, RunConfig
from moss_train.engines.deepspeed.library import load_deepspeed
from moss_train.engines.deepspeed.module import PackedModel
from moss_train.engines.deepspeed.settings import library_settings
from moss_train.engines.models import Models

DECODER, VISION = "decoder", "vision"


class DeepSpeedOptimization:
    """What `moss_train.engines.optimization.Optimization` is to megatron-core's engine.

    Args:
        models: whole modules with their weights, frozen as the stage wants. Under stage 3 their parameters are empty from
            here on, but for the moment in which a module runs; `whole_weights` gives them back.
        config: the run's.
        micro_batches: of this rank in one step.
        device: this rank's.
    """

    def __init__(self, models: Models, config: RunConfig, micro_batches: int, device: torch.device) -> None:
        deepspeed = load_deepspeed(device)
        self._deepspeed = deepspeed
        self._weight_decay = config.optimizer.weight_decay
        self._device = device
        self._prepared = False
        self.updates = 0
        """Updates applied in the whole run: skipped ones do not count."""
        self.stage = config.deepspeed.zero_stage
        self.model = PackedModel(models, config.vision)
        groups = parameter_groups(models)
        if not groups:
            raise InputError("stage.trainable leaves no parameter to train; choose another preset")
        settings = library_settings(config, models.config.text.hidden_size, micro_batches)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=self.model,
            optimizer=make_optimizer(groups, config.optimizer, fused=device.type == "cuda"),
            config=settings,
            dist_init_required=False,
        )

    def set_learning_rates(self, decoder: float, vision: float) -> None:
        """Learning rates of the next update; no weight decay for vectors."""
        for group in self.optimizer.param_groups:
            group["lr"] = decoder if group["part"] == DECODER else vision
            group["weight_decay"] = self._weight_decay * group["wd_mult"]

    def set_updates(self, updates: int) -> None:
        """Tell the number of updates applied; Adam's own count follows it."""
        self.updates = updates
        for state in self.optimizer.state.values():
            if "step" in state:
                state["step"].fill_(float(updates))

    def zero(self) -> None:
        """Drop gradients that were prepared and not applied; applied ones are gone already."""
        if self._prepared:
            self._prepared = False
            with self._overflow():
                self.engine.step()

    def prepare(self) -> float:
        """The global norm of the reduced gradients before clipping. The weights are not touched."""
        self._prepared = True
        if self.stage == 3:
            from deepspeed.runtime.utils import combine_grad_norm_groups

            norm = combine_grad_norm_groups(self.optimizer._get_norm_groups())
        else:
            norm = self.optimizer.scaled_global_norm()
        value = float(norm)
        return value if value >= 0.0 else float("nan")  # -1 stands for no number

    def apply(self) -> None:
        """Clip the prepared gradients and update the weights."""
        self._prepared = False
        self.engine.step()
        self.updates += 1

    def update(self) -> float:
        """Prepare and apply; returns the global gradient norm before clipping."""
        norm = self.prepare()
        self.apply()
        return norm

    def close(self) -> None:
        """Take DeepSpeed's hooks out of the modules."""
        self.engine.destroy()

    @contextmanager
    def _overflow(self) -> Iterator[None]:
        """Within it the optimizer takes its gradients for no numbers: a step then drops them and leaves weights and states."""
        name = "_get_norm_groups" if self.stage == 3 else "scaled_global_norm"
        infinite = torch.tensor(float("inf"), device=self._device)
        checks = self.optimizer.__dict__.get("check_grad_overflow", False)
        setattr(self.optimizer, name, (lambda: [infinite]) if self.stage == 3 else (lambda *_: infinite))
        if self.stage != 3:
            self.optimizer.check_grad_overflow = True
        try:
            yield
        finally:
            delattr(self.optimizer, name)
            if self.stage != 3:
                self.optimizer.check_grad_overflow = checks


def parameter_groups(models: Models) -> list[dict[str, Any]]:
    """Trainable parameters by part and by whether they decay, as megatron-core sorts them: biases and vectors do not."""
    groups = []
    for part, modules in ((DECODER, list(models.chunks)), (VISION, [models.unit])):
        for multiplier in (1.0, 0.0):
            chosen = [
                parameter
                for module in modules
                for name, parameter in module.named_parameters()
                if parameter.requires_grad and _decays(name, parameter) == (multiplier > 0)
            ]
            if chosen:
                groups.append({"params": chosen, "part": part, "wd_mult": multiplier, "name": f"{part}_{multiplier:g}"})
    return groups


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return not (name.endswith(".bias") or parameter.dim() == 1)


def make_optimizer(groups: list[dict[str, Any]], settings: OptimizerConfig, fused: bool) -> torch.optim.Optimizer:
    """Torch's AdamW, which is what the reference's settings ask for, or SGD; learning rates are set before every update."""
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=0.0)
    return torch.optim.AdamW(
        groups,
        lr=0.0,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=fused or None,
    )
