"""The `optimizer` group."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.config.checks import at_least, one_of, share

if TYPE_CHECKING:
    from moss_train.config.schema import PrecisionConfig

OPTIMIZERS = ("adam", "sgd", "muon")
MOMENTS = ("fp32", "bf16", "fp8")
MASTERS = ("fp32", "remainders")
MODULE_NAMES = ("vision_tower", "projector", "cross_layers", "text", "embedding", "head", "norms", "gates", "biases")
"""Parts of the model that an entry of `optimizer.modules` may name; they overlap, `text` holds embedding and head."""
_MEGATRON_ONLY = {"moments": "fp32", "master": "fp32", "offload": 0.0, "ema_decay": 0.0}


@dataclass(kw_only=True)
class ModuleConfig:
    """Learning rate and weight decay of a part of the model; where two entries fit, what the later one sets counts."""

    name: str
    """vision_tower | projector | cross_layers | text | embedding | head | norms | gates | biases; with `pattern`, any name."""
    pattern: str | None = None
    """Regular expression that is searched for in the published names of parameters; None takes the part that `name` says."""
    learning_rate_multiplier: float | None = None
    """Factor on the learning rate of the decoder or of vision; None leaves it."""
    weight_decay: float | None = None
    """In place of `optimizer.weight_decay`; None leaves it. It reaches vectors only where the entry is for norms, gates or
    biases, or has a pattern."""

    def __post_init__(self) -> None:
        where = f"optimizer.modules entry {self.name!r}"
        if not self.name:
            raise InputError(
                f"an entry of optimizer.modules has no name; use one of {', '.join(MODULE_NAMES)}, or give a pattern"
            )
        if self.pattern is None and self.name not in MODULE_NAMES:
            raise InputError(f"{where} is no part of the model; use one of {', '.join(MODULE_NAMES)}, or give a pattern")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise InputError(f"{where} has pattern {self.pattern!r}, no regular expression ({error}); correct it") from None
        for field_name in ("learning_rate_multiplier", "weight_decay"):
            value = getattr(self, field_name)
            if value is not None:
                at_least(f"{where}: {field_name}", value, 0.0)
        if self.learning_rate_multiplier is None and self.weight_decay is None:
            raise InputError(f"{where} changes nothing; give it a learning_rate_multiplier or a weight_decay")


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW, Muon or SGD on megatron-core's optimizers."""

    name: str = "adam"
    """adam (decoupled weight decay) | sgd | muon (matrices of the layers; AdamW for all else)"""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.0
    """Of sgd (0: none), and of muon, where 0.95 is usual."""
    weight_decay: float = 0.0
    """Share of a matrix taken away by an update of learning rate 1; vectors have none unless `modules` says so."""
    clip_grad: float = 1.0
    """Global gradient norm; 0 switches clipping off."""
    distributed: bool = True
    """Shard optimizer state over data-parallel ranks."""
    modules: list[ModuleConfig] = field(default_factory=list)
    """Other learning rates and weight decay for parts of the model."""
    moments: str = "fp32"
    """fp32 | bf16 | fp8: how Adam's two moments are stored, in 8, 4 or 3 bytes a parameter; fp8 is the first moment in fp8 and
    the second in fp16."""
    master: str = "fp32"
    """fp32 | remainders: weights of a bf16 run in 4 more bytes a parameter, or their lower halves alone in 2; the same values."""
    offload: float = 0.0
    """Share of Adam's states that lies in the host's memory and is updated by its CPU, 0 to 1."""
    ema_decay: float = 0.0
    """Decay of the running average of weights, 4 bytes a parameter; 0 keeps none. 0.999 averages about the last 1,000 updates."""

    def __post_init__(self) -> None:
        one_of("optimizer.name", self.name, OPTIMIZERS)
        one_of("optimizer.moments", self.moments, MOMENTS)
        one_of("optimizer.master", self.master, MASTERS)
        for name in ("beta1", "beta2", "momentum", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}; it must be at least 0 and below 1")
        for name in ("eps", "weight_decay", "clip_grad"):
            at_least(f"optimizer.{name}", getattr(self, name), 0.0)
        share("optimizer.offload", self.offload)
        names = [entry.name for entry in self.modules]
        if len(set(names)) < len(names):
            raise InputError(f"optimizer.modules has the names {names}, one of them twice; name each entry differently")

    @property
    def precision_aware(self) -> bool:
        """Whether the optimizer itself keeps the weights of a bf16 run and stores states in few bytes."""
        return self.moments != "fp32" or self.master != "fp32" or self.offload > 0

    @property
    def moment_count(self) -> int:
        """Values kept for every parameter beside weights."""
        if self.name == "adam":
            return 2
        return 1 if self.momentum > 0 else 0


def check_optimizer(settings: OptimizerConfig, precision: PrecisionConfig) -> None:
    """Refuse what megatron-core's optimizers cannot do together.

    Raises:
        InputError: naming both fields.
    """
    if settings.distributed and settings.name != "adam":
        why = "needs whole matrices" if settings.name == "muon" else "has no state to shard"
        raise InputError(f"optimizer.distributed is true with optimizer.name {settings.name}, which {why}; use false")
    for name, default in (("moments", "fp32"), ("master", "fp32"), ("offload", 0.0)):
        value = getattr(settings, name)
        if value == default:
            continue
        if settings.name != "adam":
            raise InputError(
                f"optimizer.{name} is {value} with optimizer.name {settings.name}; it is for adam only, use {default}"
            )
        if not settings.distributed:
            raise InputError(f"optimizer.{name} is {value} with optimizer.distributed false; use optimizer.distributed=true")
        if name in ("master", "offload") and precision.dtype != "bf16":
            raise InputError(f"optimizer.{name} is {value} with precision.dtype {precision.dtype}, it needs bf16; use {default}")
    if settings.offload and (settings.moments != "fp32" or settings.master != "fp32"):
        raise InputError(
            f"optimizer.offload is {settings.offload} with optimizer.moments {settings.moments} and optimizer.master "
            f"{settings.master}; a CPU's Adam knows fp32 only, use fp32 for both"
        )


def check_plain(settings: OptimizerConfig, engine: str) -> None:
    """Refuse what only engine=megatron does.

    Raises:
        InputError: naming the field.
    """
    for name, default in _MEGATRON_ONLY.items():
        value = getattr(settings, name)
        if value != default:
            remedy = "deepspeed.offload_optimizer=cpu" if name == "offload" else "engine=megatron"
            raise InputError(f"optimizer.{name} is {value} with engine {engine}, which does not have it; use {remedy}")


def remembers(beta2: float) -> bool:
    """Whether second moments in bf16 can fall: a decay of 1 - beta2 below half a step of bf16 (2^-8 of the value) rounds away."""
    return 1.0 - beta2 > math.ldexp(1.0, -8)
