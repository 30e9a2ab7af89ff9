"""The parameters of one rank, one by one: buffers are padded and checksums are made by parameter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod

from model.config import VideoMllamaConfig
from model.conversion.table import hf_shapes
from model.vocabulary import padded_rows
from moss_train.planning.communication.rank import Chunk, Rank


@dataclass(frozen=True)
class Tensor:
    """A parameter of this rank."""

    elements: int
    trains: bool
    whole: bool = False
    """Whether every tensor-parallel rank holds all of it: norms and gates."""
    per_head: bool = False
    """Norm of queries or keys, which sees the rank's own heads."""
    matrix: bool = False
    """Matrix of a layer, shared out over the tensor-parallel ranks."""


def decoder_tensors(rank: Rank, chunk: Chunk) -> list[Tensor]:
    """Of a virtual stage."""
    text, tensor, parts = rank.model.text, rank.tensor, rank.gradients.parts
    trains = "text" in parts and rank.decodes
    found = []
    if chunk.first:
        found.append(Tensor(padded_rows(text.embedding_rows, tensor) // tensor * rank.width, trains))
    for layer in chunk.layers:
        found += _layer(rank, layer in text.cross_attention_layers)
    if chunk.last:
        found.append(Tensor(rank.width, trains, whole=True))
        found.append(Tensor(padded_rows(text.vocab_size, tensor) // tensor * rank.width, trains))
    return found


def _layer(rank: Rank, cross: bool) -> list[Tensor]:
    text, width, tensor = rank.model.text, rank.width, rank.tensor
    trains = ("cross_layers" if cross else "text") in rank.gradients.parts and rank.decodes
    keys = 2 * text.num_key_value_heads * text.head_dim
    inputs = [width * width, keys * width] if cross else [(width + keys) * width]
    matrices = [*inputs, width * width, 2 * text.intermediate_size * width, text.intermediate_size * width]
    small = [Tensor(width, trains, whole=True)] * 2
    if cross:
        small += [Tensor(1, trains, whole=True)] * 2
        small += [Tensor(text.head_dim, trains, whole=True, per_head=True)] * 2
    return [*(Tensor(size // tensor, trains, matrix=True) for size in matrices), *small]


@cache
def _vision_sizes(config: VideoMllamaConfig) -> tuple[tuple[str, int], ...]:
    """Names and elements of the tower's and the projector's parameters."""
    return tuple((name, prod(shape)) for name, shape in hf_shapes(config).items() if not name.startswith("language_model."))


def vision_tensors(rank: Rank) -> list[Tensor]:
    """Of the vision unit, equal on all ranks; in the warm start with the patch classifier."""
    config, parts = rank.model, rank.gradients.parts
    found = [
        Tensor(size, ("projector" if name.startswith("multi_modal_projector.") else "vision_tower") in parts)
        for name, size in _vision_sizes(config)
    ]
    if not rank.decodes:
        classes = rank.config.stage.dense_classes + config.vision.tokens_per_frame - 1
        found += [Tensor(classes * config.vision.output_dim, True), Tensor(classes, True)]
    return found
