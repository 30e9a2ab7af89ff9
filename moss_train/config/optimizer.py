"""The `optimizer` group."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.checks import one_of


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW or SGD of megatron-core."""

    name: str = "adam"
    """adam (decoupled weight decay) | sgd"""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_grad: float = 1.0
    """Global gradient norm; 0 switches clipping off."""
    distributed: bool = True
    """Shard optimizer state over data-parallel ranks."""

    def __post_init__(self) -> None:
        one_of("optimizer.name", self.name, ("adam", "sgd"))
