"""Gradient buffers and optimizers: the decoder in megatron-core's groups, the vision unit data parallel over the world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import ChainedOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.transformer.transformer_config import TransformerConfig

from model.errors import InputError
from moss_train.config.schema import OptimizerConfig as OptimizerSettings
from moss_train.config.schema import PrecisionConfig
from moss_train.parallel.layout import ParallelLayout


def trains_anywhere(modules: Sequence[torch.nn.Module], device: torch.device) -> bool:
    """Whether any rank has a trainable parameter among its modules: construction is collective, so all must agree."""
    flag = torch.tensor([any(p.requires_grad for m in modules for p in m.parameters())], dtype=torch.int32, device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _no_state(optimizer: Any, config: Any = None) -> None:
    """Initial state of an optimizer without state."""


class Optimization:
    """Everything that holds a gradient or an optimizer state.

    Args:
        chunks: the decoder's virtual stages on this rank, frozen as the stage wants.
        vision: vision encoder (and dense head), replicated on every rank.
        transformer_config: config shared by the decoder's modules.
        layout: this rank's place.
        settings: optimizer values; learning rates are set before every update.
        precision: parameter dtype and the dtype of reduced gradients.
    """

    def __init__(
        self,
        chunks: Sequence[torch.nn.Module],
        vision: torch.nn.Module,
        transformer_config: TransformerConfig,
        layout: ParallelLayout,
        settings: OptimizerSettings,
        precision: PrecisionConfig,
    ) -> None:
        if settings.name == "sgd" and settings.distributed:
            raise InputError("optimizer.distributed is true with optimizer.name sgd, which has no state to shard; use false")
        self._weight_decay = settings.weight_decay
        self._norm = float("nan")
        self.updates = 0
        """Updates applied in the whole run: skipped ones do not count."""
        self._counts_steps = settings.name == "adam" and settings.distributed
        bf16 = precision.dtype == "bf16"
        reduce_fp32 = precision.grad_reduce_fp32

        def buffers(fp32: bool) -> DistributedDataParallelConfig:
            # No overlap: a rank that encodes no frame in one step must still take part in the same reductions.
            return DistributedDataParallelConfig(
                use_distributed_optimizer=settings.distributed, grad_reduce_in_fp32=fp32, overlap_grad_reduce=False
            )

        config = OptimizerConfig(
            optimizer=settings.name,
            lr=1.0,
            min_lr=0.0,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.beta1,
            adam_beta2=settings.beta2,
            adam_eps=settings.eps,
            sgd_momentum=0.0,
            clip_grad=settings.clip_grad,
            use_distributed_optimizer=settings.distributed,
            bf16=bf16,
            params_dtype=torch.bfloat16 if bf16 else torch.float32,
        )
        decoder_trains = trains_anywhere(chunks, layout.device)
        vision_trains = trains_anywhere([vision], layout.device)
        if not decoder_trains and not vision_trains:
            raise InputError("stage.trainable leaves no parameter to train; choose another preset")
        # The schedule needs wrapped chunks even when nothing in them trains.
        self.decoder = [
            DistributedDataParallel(transformer_config, buffers(reduce_fp32), chunk, disable_bucketing=i > 0)
            for i, chunk in enumerate(chunks)
        ]
        self.vision: Any = None
        self.decoder_optimizers: list[Any] = []
        self.vision_optimizers: list[Any] = []
        if decoder_trains:
            self.decoder_optimizers = get_megatron_optimizer(config, self.decoder).chained_optimizers
        if vision_trains:
            groups = layout.vision_groups
            # Several encoder chunks add into one buffer: fp32 main gradients always.
            self.vision = DistributedDataParallel(transformer_config, buffers(True), vision, pg_collection=groups)
            self.vision_optimizers = get_megatron_optimizer(
                config, [self.vision], use_gloo_process_groups=False, pg_collection=groups
            ).chained_optimizers
        self.optimizer = ChainedOptimizer(self.decoder_optimizers + self.vision_optimizers)
        if settings.name == "sgd":  # without momentum it has no state, but loading asks for a function that makes it
            for optimizer in self.optimizer.chained_optimizers:
                optimizer.init_state_fn = _no_state

    def zero(self) -> None:
        """Clear all gradients."""
        for chunk in self.decoder:
            chunk.zero_grad_buffer()
        if self.vision is not None:
            self.vision.zero_grad_buffer()
        self.optimizer.zero_grad()

    def finish_vision(self, targets: torch.Tensor) -> None:
        """Sum the vision gradients over the world and divide by the number of targets; every rank calls it.

        Args:
            targets: scalar, global number of targets.
        """
        if self.vision is None:
            return
        self.vision.finish_grad_sync()
        if targets > 0:
            self.vision.scale_gradients(1.0 / targets)

    def set_learning_rates(self, decoder: float, vision: float) -> None:
        """Learning rates of the next update; weight decay follows each group's multiplier (0 for vectors)."""
        for optimizers, rate in ((self.decoder_optimizers, decoder), (self.vision_optimizers, vision)):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
                    group["weight_decay"] = self._weight_decay * group["wd_mult"]

    def set_updates(self, updates: int) -> None:
        """Tell every parameter group the number of updates applied.

        The optimizers count only in groups that have parameters here; a stage that trains nothing would lose the count
        in a checkpoint.
        """
        self.updates = updates
        if self._counts_steps:
            for optimizer in self.optimizer.chained_optimizers:
                for group in optimizer.param_groups:
                    group["step"] = updates

    def prepare(self) -> float:
        """Make the gradients ready; their global norm before clipping. The weights are not touched."""
        self.optimizer.prepare_grads()
        norm = self.optimizer.get_grad_norm()
        self._norm = float(norm) if norm is not None else float("nan")
        return self._norm

    def apply(self) -> None:
        """Clip the prepared gradients and update the weights."""
        for optimizer in self.optimizer.chained_optimizers:
            parameters = optimizer.get_parameters()
            if parameters and optimizer.config.clip_grad > 0.0:
                clip_grad_by_total_norm_fp32(
                    parameters,
                    max_norm=optimizer.config.clip_grad,
                    total_norm=self._norm,
                    use_decoupled_grad=optimizer.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8,
                )
        self.optimizer.step_with_ready_grads()
        self.updates += 1

    def update(self) -> float:
        """Prepare and apply; returns the global gradient norm before clipping."""
        norm = self.prepare()
        self.apply()
        return norm
