"""Gradients, optimizer states and updates of a model that DeepSpeed runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from model.errors import InputError
from moss_train.config.schema import OptimizerConfig, RunConfig
from moss_train.engines.deepspeed.module import PackedModel
from moss_train.engines.deepspeed.package import load_deepspeed
from moss_train.engines.deepspeed.settings import library_settings
from moss_train.engines.deepspeed.state import ShardedOptimizer, ShardedPlaces
from moss_train.engines.models import Models
from moss_train.engines.optimizer.modules import ModuleRates, Rate, named

DECODER, VISION = "decoder", "vision"


class DeepSpeedOptimization:
    """What `moss_train.engines.optimization.Optimization` is to megatron-core's engine.

    Args:
        models: whole modules with their weights, frozen as the stage wants. Under stage 3 their parameters are empty from
            here on, but for the moment in which a module runs.
        config: the run's.
        micro_batches: of this rank in one step.
        device: this rank's.
    """

    def __init__(self, models: Models, config: RunConfig, micro_batches: int, device: torch.device) -> None:
        deepspeed = load_deepspeed(device)
        self._device = device
        self._prepared = False
        self.updates = 0
        """Updates applied in the whole run: skipped ones do not count."""
        self.stage = config.deepspeed.zero_stage
        self.places = ShardedPlaces(models.chunks, models.unit)
        """Of all parameters, for checkpoints."""
        groups = parameter_groups(models, config.optimizer)
        if not groups:
            raise InputError("stage.trainable leaves no parameter to train; choose another preset")
        self.engine, self._zero, _, _ = deepspeed.initialize(
            model=PackedModel(models, config.vision),
            optimizer=make_optimizer(groups, config.optimizer, fused=device.type == "cuda"),
            config=library_settings(config, models.config.text.hidden_size, micro_batches),
            dist_init_required=False,
        )
        self.optimizer = ShardedOptimizer(
            self._zero, self.stage, _states(config.optimizer), keeps_masters=config.precision.dtype != "fp32"
        )

    def set_learning_rates(self, decoder: float, vision: float) -> None:
        """Learning rates of the next update, before the multipliers of `optimizer.modules`."""
        for group in self._zero.param_groups:
            group["lr"] = (decoder if group["part"] == DECODER else vision) * group["lr_mult"]

    def set_updates(self, updates: int) -> None:
        """Tell the number of updates applied; Adam's bias correction follows it."""
        self.updates = updates
        self.optimizer.set_updates(updates)

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

            norm = combine_grad_norm_groups(self._zero._get_norm_groups())
        else:
            norm = self._zero.scaled_global_norm()
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
        checks = getattr(self._zero, "check_grad_overflow", False)
        logger = logging.getLogger("DeepSpeed")
        level = logger.level
        logger.setLevel(logging.ERROR)  # it would warn of an overflow
        setattr(self._zero, name, (lambda: [infinite]) if self.stage == 3 else (lambda *_: infinite))
        self._zero.check_grad_overflow = True
        try:
            yield
        finally:
            delattr(self._zero, name)
            self._zero.check_grad_overflow = checks
            logger.setLevel(level)


def parameter_groups(models: Models, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """Trainable parameters by part of the model and by what they are updated with, as in the other engine."""
    rates = ModuleRates(settings, models.config)
    groups: dict[tuple[str, Rate], list[nn.Parameter]] = {}
    inside = {id(parameter) for parameter in models.unit.parameters()}
    for name, parameter in named(models.chunks, models.unit):
        if parameter.requires_grad:
            part = VISION if id(parameter) in inside else DECODER
            groups.setdefault((part, rates.of(name, parameter)), []).append(parameter)
    return [
        {"params": members, "part": part, "lr_mult": rate.multiplier, "weight_decay": rate.decay, "name": f"{part}{number}"}
        for number, ((part, rate), members) in enumerate(sorted(groups.items(), key=lambda item: item[0]))
    ]


def make_optimizer(groups: list[dict[str, Any]], settings: OptimizerConfig, fused: bool) -> torch.optim.Optimizer:
    """Torch's AdamW, which is what the reference's settings ask for, or SGD; learning rates are set before every update."""
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=fused or None)


def _states(settings: OptimizerConfig) -> list[str]:
    """What the optimizer keeps of a parameter, by torch's names."""
    if settings.name == "adam":
        return ["exp_avg", "exp_avg_sq"]
    return ["momentum_buffer"] if settings.momentum > 0 else []
