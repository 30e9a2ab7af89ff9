"""Gradient buffers without an optimizer: what a step is made of that ends with its gradients, as other frameworks' figures do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import ChainedOptimizer
from megatron.core.transformer.transformer_config import TransformerConfig

from model.errors import InputError
from moss_train.config.schema import PrecisionConfig
from moss_train.engines.buffers import lighten
from moss_train.engines.optimization import Optimization, _forget_hooks
from moss_train.parallel.layout import ParallelLayout, at_end_of_layout


class GradientsOnly(Optimization):
    """`Optimization` that holds gradients, in the buffers of a run, and updates nothing.

    Args:
        chunks: the decoder's virtual stages on this rank, frozen as the stage wants.
        vision: the vision unit.
        transformer_config: config shared by the decoder's modules.
        layout: this rank's place.
        precision: the dtype of reduced gradients.

    Raises:
        InputError: nothing trains.
    """

    def __init__(
        self, chunks: Sequence[torch.nn.Module], vision: torch.nn.Module, transformer_config: TransformerConfig,
        layout: ParallelLayout, precision: PrecisionConfig,
    ) -> None:  # fmt: skip
        def buffers(fp32: bool) -> DistributedDataParallelConfig:
            return DistributedDataParallelConfig(
                use_distributed_optimizer=True, grad_reduce_in_fp32=fp32, overlap_grad_reduce=False
            )

        if not any(p.requires_grad for module in (*chunks, vision) for p in module.parameters()):
            raise InputError("stage.trainable leaves no parameter to train; choose another preset")
        self._norm, self.updates, self._counts_steps, self._average = float("nan"), 0, False, None
        self.decoder = [
            DistributedDataParallel(transformer_config, buffers(precision.grad_reduce_fp32), chunk, disable_bucketing=i > 0)
            for i, chunk in enumerate(chunks)
        ]
        self.vision = None
        if any(p.requires_grad for p in vision.parameters()):
            self.vision = DistributedDataParallel(transformer_config, buffers(True), vision, pg_collection=layout.vision_groups)
        self.decoder_optimizers, self.vision_optimizers = [], []
        self.optimizer = ChainedOptimizer([])
        wrapped = [*self.decoder, *([self.vision] if self.vision is not None else [])]
        lighten(wrapped)
        at_end_of_layout(lambda: _forget_hooks(wrapped))

    def prepare(self) -> float:
        """Nothing: there is no optimizer that would want the gradients' norm."""
        return self._norm

    def apply(self) -> None:
        """Nothing."""
