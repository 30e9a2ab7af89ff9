"""From the `optimizer` group to megatron-core's own configuration."""

from __future__ import annotations

import sys
from typing import Any

import megatron.core.optimizer as optimizers
import torch
import torch.distributed as dist
from megatron.core.optimizer import OptimizerConfig

from model.errors import InputError
from moss_train.config.optimizer import OptimizerConfig as OptimizerSettings
from moss_train.config.optimizer import check_optimizer, remembers
from moss_train.config.schema import PrecisionConfig
from moss_train.platform.fused_adam import FusedAdam

_DTYPES = {
    "fp32": (torch.float32, torch.float32),
    "bf16": (torch.bfloat16, torch.bfloat16),
    # Transformer Engine's fp8 is E4M3 with one scale: too narrow for squares, which get fp16 and a scale.
    "fp8": (torch.uint8, torch.float16),
}


def megatron_config(settings: OptimizerSettings, precision: PrecisionConfig, device: torch.device) -> OptimizerConfig:
    """The configuration of all optimizers of a run.

    Raises:
        InputError: choices that do not go together, or that this machine lacks something for.
    """
    check_optimizer(settings, precision)
    bf16 = precision.dtype == "bf16"
    config = OptimizerConfig(
        optimizer="adam" if settings.name == "adam" else "sgd",  # Muon takes the place of SGD later
        lr=1.0,
        min_lr=0.0,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_eps=settings.eps,
        sgd_momentum=settings.momentum,
        clip_grad=settings.clip_grad,
        use_distributed_optimizer=settings.distributed,
        bf16=bf16,
        params_dtype=torch.bfloat16 if bf16 else torch.float32,
    )
    if settings.precision_aware:
        _check_machine(settings, device)
        _be_precision_aware(config, settings)
    return config


def _be_precision_aware(config: OptimizerConfig, settings: OptimizerSettings) -> None:
    # Set afterwards: the constructor asks for Transformer Engine, without which our own Adam does the same.
    values: dict[str, Any] = {
        "use_precision_aware_optimizer": True,
        "use_precision_aware_optimizer_no_fp8_or_ds_fp8": True,
        "main_params_dtype": torch.float32,
        "store_param_remainders": settings.master == "remainders",
        "optimizer_cpu_offload": settings.offload > 0,
        "optimizer_offload_fraction": settings.offload,
    }
    values["exp_avg_dtype"], values["exp_avg_sq_dtype"] = _DTYPES[settings.moments]
    for name, value in values.items():
        setattr(config, name, value)


def _check_machine(settings: OptimizerSettings, device: torch.device) -> None:
    ours = getattr(optimizers, "Adam") is FusedAdam  # noqa: B009 - the attribute is set at import
    if settings.moments == "fp8" and ours:
        raise InputError("optimizer.moments is fp8, which needs Transformer Engine and a GPU; use bf16 or fp32")
    if settings.offload and device.type != "cuda":
        raise InputError(f"optimizer.offload is {settings.offload} and the run is on the CPU already; use 0")
    if settings.moments == "bf16" and not remembers(settings.beta2) and dist.get_rank() == 0:
        print(
            f"optimizer.moments is bf16 with optimizer.beta2 {settings.beta2}: second moments can rise but not fall, because a "
            "decay of less than 0.4 % an update rounds away; use beta2 of 0.99 or less, or moments fp32",
            file=sys.stderr,
        )
