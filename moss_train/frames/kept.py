"""Keeping less of a frame between its forward and its backward pass: the tower's layers by level.

What a level keeps of a layer, and what the backward pass computes again: `model.vision.fused.levels`. The operations are the
same and run on the same operands, so gradients do not depend on the level, but for a rounding (`model.vision.fused.layer`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from model.errors import InputError
from model.vision.fused.levels import stacks_of, with_level


@contextmanager
def keeping(encoder: object, level: str) -> Iterator[None]:
    """Within it, forward passes of the encoder's layers keep what a level says.

    Args:
        encoder: the vision encoder.
        level: a key of `model.vision.fused.levels.KEPT`.

    Raises:
        InputError: the encoder has no stack of layers of which this could be said.
    """
    stacks = stacks_of(encoder) if isinstance(encoder, nn.Module) else []
    if not stacks and level != "all":
        raise InputError(f"vision.keep_mode is {level} but the vision tower is not made of such layers; use vision.keep_mode=all")
    before = [stack.apply_layer for stack in stacks]
    try:
        for stack in stacks:
            stack.apply_layer = with_level(stack.apply_layer, level)
        yield
    finally:
        for stack, apply in zip(stacks, before, strict=True):
            stack.apply_layer = apply
