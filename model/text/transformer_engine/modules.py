"""Transformer Engine's modules as the decoder's layers want them, on top of megatron-core's own wrappers."""

from __future__ import annotations

from typing import Any

import torch
import transformer_engine_torch as engine
from megatron.core.extensions.transformer_engine import (
    TEColumnParallelLinear,
    TEDotProductAttention,
    TELayerNormColumnParallelLinear,
    TERowParallelLinear,
)
from megatron.core.fp8_utils import get_fp8_recipe
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType
from torch import Tensor
from transformer_engine.pytorch.attention.rope import apply_rotary_pos_emb
from transformer_engine.pytorch.quantization import FP8GlobalStateManager

from model.attention.cores import plan_of
from model.fp8 import MULTIPLE, check_rows, current_scaling, full_precision, pad_rows
from model.text.cross_layer import GatedCrossLayer
from model.text.transformer_engine.history import history_of, put_history_back


class _History:
    """Keeps the history of delayed scaling in a checkpoint as plain tensors.

    Transformer Engine pickles it, and refuses to read pickles back unless told that every checkpoint is trusted.
    """

    config: Any

    def get_extra_state(self) -> Any:
        return history_of(self)

    def set_extra_state(self, state: Any) -> None:
        put_history_back(self, state, lambda: get_fp8_recipe(self.config))


def _check(module: Any, rows: int) -> None:
    """Rows [T, 1, H] of a micro-batch, or a rank's share of them, before an fp8 product."""
    if FP8GlobalStateManager.is_fp8_enabled():
        ranks = module.tp_size if module.sequence_parallel else 1
        check_rows(rows * ranks, ranks)


class EngineNormColumnLinear(_History, TELayerNormColumnParallelLinear):
    """Norm and column-parallel product in one module."""

    def forward(self, x: Tensor) -> Any:
        _check(self, x.shape[0])
        return super().forward(x)


class EngineColumnLinear(_History, TEColumnParallelLinear):
    """Column-parallel product over the rows of a micro-batch."""

    def forward(self, x: Tensor) -> Any:
        _check(self, x.shape[0])
        return super().forward(x)


class EngineRowLinear(_History, TERowParallelLinear):
    """Row-parallel product."""


class EngineFrameLinear(_History, TEColumnParallelLinear):
    """Column-parallel product over frame tokens [F, P, H], however many there are."""

    def forward(self, x: Tensor) -> Any:
        tokens = x.shape[:-1].numel()
        if tokens % MULTIPLE == 0 or not FP8GlobalStateManager.is_fp8_enabled():
            return super().forward(x)
        y, bias = super().forward(pad_rows(x))
        return y[:tokens].view(*x.shape[:-1], -1), bias


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        y: Tensor = engine.swiglu(x, None)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx: Tensor = engine.dswiglu(gradients[0].contiguous(), x, None)
        return dx


def swiglu(x: Tensor) -> Tensor:
    """silu of the first half times the second half, in one kernel; its input alone is kept for the backward pass.

    [..., 2 I] -> [..., I]
    """
    y: Tensor = _SwiGLU.apply(x.reshape(-1, x.shape[-1]))  # type: ignore[no-untyped-call]
    return y.view(*x.shape[:-1], -1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary embedding in one kernel, in fp32 inside: x [T, heads, d], angles fp32 [T, d] -> as x.

    Every row brings its own angle, so packing, and which rows are on this rank, do not concern the kernel.
    """
    return apply_rotary_pos_emb(x[:, None], angles[:, None, None], tensor_format="sbhd", fused=True)[:, 0]  # type: ignore[no-any-return]


class EngineSelfCore(TEDotProductAttention):
    """Rotates queries and keys, then attends causally inside each sample, with fused kernels.

    Under context parallelism the rows are a rank's two halves of every sample in zig-zag order, and the samples' bounds
    are those of the whole micro-batch; keys and values go round the ring of ranks.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None,
        attn_mask_type: Any = None, attention_bias: Tensor | None = None, packed_seq_params: PackedSeqParams | None = None,
    ) -> Tensor:  # fmt: skip
        """query [T, heads, d], key and value [T, groups, d] -> [T, heads * d]."""
        angles = plan_of(packed_seq_params).angles
        mixed: Tensor = super().forward(
            rotate(query, angles), rotate(key, angles), value.contiguous(), None, AttnMaskType.padding_causal,
            packed_seq_params=packed_seq_params,
        )  # fmt: skip
        return mixed.reshape(query.shape[0], -1)


class FullPrecisionCrossLayer(GatedCrossLayer):
    """Computes in the parameters' dtype also where the decoder around it computes in fp8."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        with full_precision():
            return super().forward(*args, **kwargs)


class CurrentScalingCrossLayer(GatedCrossLayer):
    """Computes in fp8 where the decoder does, always with current scaling.

    A micro-batch without frames skips the layer, so under delayed scaling ranks would disagree about whose history moves on.
    """

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        if not FP8GlobalStateManager.is_fp8_enabled():
            return super().forward(*args, **kwargs)
        with current_scaling():
            return super().forward(*args, **kwargs)
