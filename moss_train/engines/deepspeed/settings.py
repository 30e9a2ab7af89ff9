"""From a run's config to the dictionary that DeepSpeed takes."""

from __future__ import annotations

from typing import Any

from moss_train.config.schema import RunConfig

_NEVER = 1 << 40


def library_settings(config: RunConfig, hidden_size: int, micro_batches: int) -> dict[str, Any]:
    """What `deepspeed.initialize` is given. Learning rates, batches and precision come from the groups that every engine
    uses; the optimizer and the schedule are ours, so no such blocks are in it.

    Args:
        config: a run with `engine=deepspeed`.
        hidden_size: of the decoder.
        micro_batches: of one rank in a step.
    """
    values, square = config.deepspeed, hidden_size * hidden_size
    zero: dict[str, Any] = {
        "stage": values.zero_stage,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "allgather_partitions": True,
        "reduce_bucket_size": values.reduce_bucket_size or square,
        "allgather_bucket_size": values.allgather_bucket_size,
        "overlap_comm": values.overlap_comm,
    }
    if values.offload_optimizer != "none":
        zero["offload_optimizer"] = {"device": values.offload_optimizer, "pin_memory": True}
    if values.zero_stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": _or(values.prefetch_bucket_size, int(0.9 * square)),
            "stage3_param_persistence_threshold": _or(values.param_persistence_threshold, 10 * hidden_size),
            "stage3_max_live_parameters": values.max_live_parameters,
            "stage3_max_reuse_distance": values.max_reuse_distance,
            "sub_group_size": values.sub_group_size,
        }
        if values.offload_param != "none":
            zero["offload_param"] = {"device": values.offload_param, "pin_memory": True}
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": config.optimizer.clip_grad,
        "bf16": {"enabled": config.precision.dtype == "bf16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW runs on the CPU too and needs no compiler
        "steps_per_print": _NEVER,
        "wall_clock_breakdown": False,
    }
    if config.precision.grad_reduce_fp32:
        settings["communication_data_type"] = "fp32"
    return settings


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
