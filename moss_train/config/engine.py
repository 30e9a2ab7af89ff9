"""The `deepspeed` group: values of `engine=deepspeed`."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.checks import at_least

ENGINES = ("megatron",)


@dataclass(kw_only=True)
class DeepSpeedConfig:
    zero_stage: int = 2
    """0 | 1 | 2 | 3: what is sharded over the ranks: nothing, optimizer states, also gradients, also weights."""

    def __post_init__(self) -> None:
        at_least("deepspeed.zero_stage", self.zero_stage, 0)
