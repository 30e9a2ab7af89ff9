"""The `deepspeed` group: values of `engine=deepspeed`, and what that engine does not take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.config.checks import at_least, one_of

if TYPE_CHECKING:
    from moss_train.config.schema import RunConfig

ENGINES = ("megatron", "deepspeed")
OFFLOAD = ("none", "cpu")
STAGES = (1, 2, 3)


@dataclass(kw_only=True)
class DeepSpeedConfig:
    """Buckets and thresholds count elements, not bytes. None derives a value from the decoder's hidden size h, as the
    reference's `auto` does."""

    zero_stage: int = 2
    """1 | 2 | 3: what is sharded over the ranks: optimizer states, also gradients, also weights."""
    reduce_bucket_size: int | None = None
    """Gradient elements reduced at once; None: h * h."""
    allgather_bucket_size: int = 100_000_000
    """Weight elements gathered at once after an update (stages 1 and 2)."""
    overlap_comm: bool = False
    """Reduce gradients while the backward pass goes on."""
    offload_optimizer: str = "none"
    """none | cpu: where optimizer states live and the update is computed."""
    offload_param: str = "none"
    """none | cpu: where the weights' shards wait for their use; stage 3 only."""
    prefetch_bucket_size: int | None = None
    """Stage 3: weight elements gathered ahead of their use; None: 0.9 * h * h."""
    param_persistence_threshold: int | None = None
    """Stage 3: weights with fewer elements stay whole on every rank; None: 10 * h."""
    max_live_parameters: int = 1_000_000_000
    """Stage 3: weight elements that may be whole on a rank at one time."""
    max_reuse_distance: int = 1_000_000_000
    """Stage 3: a weight that is used again within so many elements is not released."""
    sub_group_size: int = 1_000_000_000
    """Stage 3: weight elements updated at once."""

    def __post_init__(self) -> None:
        if self.zero_stage not in STAGES:
            raise InputError(
                f"deepspeed.zero_stage is {self.zero_stage}; use 1, 2 or 3 (stage 0 shards nothing: that is engine=megatron with "
                "optimizer.distributed=false)"
            )
        for name in ("reduce_bucket_size", "prefetch_bucket_size", "param_persistence_threshold"):
            if getattr(self, name) is not None:
                at_least(f"deepspeed.{name}", getattr(self, name), 1 if name == "reduce_bucket_size" else 0)
        at_least("deepspeed.allgather_bucket_size", self.allgather_bucket_size, 1)
        for name in ("max_live_parameters", "max_reuse_distance", "sub_group_size"):
            at_least(f"deepspeed.{name}", getattr(self, name), 1)
        one_of("deepspeed.offload_optimizer", self.offload_optimizer, OFFLOAD)
        one_of("deepspeed.offload_param", self.offload_param, OFFLOAD)
        if self.offload_param != "none" and self.zero_stage < 3:
            raise InputError(
                f"deepspeed.offload_param is {self.offload_param} with deepspeed.zero_stage {self.zero_stage}, which keeps all "
                "weights on the device; use deepspeed.zero_stage=3 or deepspeed.offload_param=none"
            )


def check_engine(config: RunConfig) -> None:
    """Refuse what `engine=deepspeed` does not do.

    Raises:
        InputError: naming the first such setting.
    """
    one_of("engine", config.engine, ENGINES)
    if config.engine != "deepspeed":
        return
    for name in ("tensor", "pipeline", "virtual_pipeline", "context"):
        size = getattr(config.parallel, name)
        if size != 1:
            raise InputError(
                f"parallel.{name} is {size} with engine deepspeed, which is data parallel only; use parallel.{name}=1 or "
                "engine=megatron"
            )
    if config.train.steps == 0 and config.deepspeed.zero_stage == 3:
        raise InputError(
            "train.steps is 0 with deepspeed.zero_stage 3, which shards weights for training; use deepspeed.zero_stage=2"
        )
    if config.guard.check_copies_every and config.deepspeed.zero_stage == 3:
        raise InputError(
            f"guard.check_copies_every is {config.guard.check_copies_every} with deepspeed.zero_stage 3, whose ranks hold slices "
            "and no copies; set it to 0"
        )
    if config.vision.keep_host_gib:
        raise InputError(
            f"vision.keep_host_gib is {config.vision.keep_host_gib:g} with engine deepspeed, which keeps frames on the device; "
            "set it to 0 or use engine=megatron"
        )
    if config.vision.keep_mode in ("attention", "middle", "most") and config.deepspeed.zero_stage == 3:
        raise InputError(
            f"vision.keep_mode is {config.vision.keep_mode} with deepspeed.zero_stage 3, whose gathering of weights disturbs it; "
            "use vision.keep_mode=all"
        )
    if config.vision.layers == "fused" and config.deepspeed.zero_stage == 3:
        raise InputError(
            "vision.layers is fused with deepspeed.zero_stage 3, which hands weights out operator by operator; "
            "use vision.layers=auto"
        )
    if config.stage.objective != "next_token":
        raise InputError(
            f"stage.objective is {config.stage.objective} with engine deepspeed, which trains next_token only; "
            "use engine=megatron"
        )
    if config.precision.fp8 != "none" or config.precision.fp8_vision:
        raise InputError("precision.fp8 or fp8_vision is set with engine deepspeed, which has no fp8; use precision=bf16")
    if config.optimizer.name not in ("adam", "sgd"):
        raise InputError(
            f"optimizer.name is {config.optimizer.name} with engine deepspeed, which takes adam or sgd; use one of them or "
            "engine=megatron"
        )
