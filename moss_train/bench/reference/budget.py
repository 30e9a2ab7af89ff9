"""How much of the frames' state our side may keep on a card: what the limit leaves beside weights, gradients and decoder."""

from __future__ import annotations

from model.config import VideoMllamaConfig
from moss_train.bench.reference.published import PUBLISHED
from moss_train.frames.activations import activation_bytes
from moss_train.frames.settings import GIB

HALVED_FROM = 256
"""Frames from which on our side stays within half of what the reference's figures take."""
FREE_GIB, MARGIN_GIB = 2.6, 1.5
"""Left of what the process could have, for gaps between tensors; left of half the reference's memory."""
MIXED_GIB = 8.0
"""Left beside `FREE_GIB` where packs of many samples follow each other: gaps that tensors of other sizes have left."""
SMALLER = 0.5
"""Of what a case was to keep, where memory was short all the same."""
AGAIN = (4, 24)
"""Frames encoded again at once, at least and at most; each takes 1.6 GB at 11B."""
LAYER_STATE = 19
"""What a decoder layer keeps of a row, in hidden states: inputs, norms, q, k, v, attention, both sides of the MLP."""
OTHER_GIB = 4.0
"""Logits, features, keys and values of cross layers, what one layer's backward pass needs for a moment."""


def limit_gib(card_gib: float, frames: int, mixed: bool = False) -> float:
    """Memory that a case of ours may take.

    Args:
        card_gib: of the card, as much of it as this process has or could have.
        frames: of the case's largest micro-batch.
        mixed: a stage's samples in packs.
    """
    card = card_gib - FREE_GIB - (MIXED_GIB if mixed else 0.0)
    figures = PUBLISHED.get(frames)
    if figures is None or frames < HALVED_FROM:
        return card
    return min(card, figures.peak_gib / 2 - MARGIN_GIB)


def keep_gib(
    config: VideoMllamaConfig, *, limit: float, static: float, rows: int, element: int = 2, fused: bool = True, fp8: bool = False,
    parameters: int = 0,
) -> float:  # fmt: skip
    """`vision.keep_activations_gib` of a case.

    Args:
        config: the model.
        limit: GiB in all, of `limit_gib`.
        static: GiB of weights, gradients and states of the optimizer.
        rows: of the largest micro-batch.
        element: bytes of an activation.
        fused: whether the tower's layers are.
        fp8: weights are held in fp8 too, and transposed.
        parameters: of the model.
    """
    decoder = rows * config.text.num_hidden_layers * LAYER_STATE * config.text.hidden_size * element
    return max(0.0, _room_gib(limit, static, fp8, parameters) - decoder / GIB)


def again_frames(
    config: VideoMllamaConfig, *, limit: float, static: float, element: int = 2, fused: bool = True, fp8: bool = False,
    parameters: int = 0,
) -> int:  # fmt: skip
    """`vision.again_chunk_frames` of a case: neither the decoder's state nor what was kept is left when frames are encoded again.

    Args:
        config, limit, static, element, fused, fp8, parameters: as of `keep_gib`.
    """
    a_frame = activation_bytes(config.vision, element, "all", config.switches.vit_keep_pad_tokens, fused)
    return max(AGAIN[0], min(AGAIN[1], int(_room_gib(limit, static, fp8, parameters) * GIB / a_frame)))


def _room_gib(limit: float, static: float, fp8: bool, parameters: int) -> float:
    return limit - static - OTHER_GIB - (2 * parameters / GIB if fp8 else 0.0)
