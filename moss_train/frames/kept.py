"""Keeping less of a frame for the backward pass: each layer's input and its attention's output.

Between the two passes a layer of the tower holds its input, and what the attention operator returned: output,
logsumexp and, on CUDA, its random state. The backward pass runs layer norms, the query, key, value and output
projections and the first linear map of the MLP again; attention's forward is not run (its backward takes the saved
output and logsumexp), and recomputation ends before the second linear map, whose output nothing needs. The operators
are the same and run on the same inputs, so gradients are those of plain autograd.

Built on torch's selective checkpointing, which works on operators: it holds for each of the kernels that
`scaled_dot_product_attention` chooses. Where that falls back to plain matrix products, those are run again too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from model.errors import InputError
from model.vision.layers import VisionTransformer

aten = torch.ops.aten
ATTENTION_OPERATORS = [
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
]


def keep_attention(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer so that only `x` and the attention operator's results stay for the backward pass."""
    output: Tensor = checkpoint(
        layer,
        x,
        use_reentrant=False,
        preserve_rng_state=False,  # the tower draws nothing
        context_fn=partial(create_selective_checkpoint_contexts, ATTENTION_OPERATORS),
    )
    return output


@contextmanager
def attention_outputs_kept(encoder: object) -> Iterator[None]:
    """Within it, forward passes of the encoder's layers keep their inputs and attention outputs only.

    Raises:
        InputError: the encoder has no stack of layers of which this could be said.
    """
    stacks = [m for m in encoder.modules() if isinstance(m, VisionTransformer)] if isinstance(encoder, nn.Module) else []
    if not stacks:
        raise InputError(
            "vision.keep_mode is attention but the vision tower is not made of such layers; use vision.keep_mode=all"
        )
    before = [stack.apply_layer for stack in stacks]
    try:
        for stack in stacks:
            stack.apply_layer = keep_attention
        yield
    finally:
        for stack, apply in zip(stacks, before, strict=True):
            stack.apply_layer = apply
