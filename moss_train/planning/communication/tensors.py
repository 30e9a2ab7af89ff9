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
    partial: bool = False
    """Whether under sequence parallelism each rank's gradient is of its own rows alone."""


def decoder_tensors(rank: Rank, chunk: Chunk) -> list[Tensor]:
    """Of a virtual stage."""
    text, tensor = rank.model.text, rank.tensor
    trains = "text" in rank.gradients.parts and rank.decodes
    found = []
    if chunk.first:
        found.append(Tensor(padded_rows(text.embedding_rows, tensor) // tensor * rank.width, trains))
    for layer in chunk.layers:
        found += _layer(rank, layer in text.cross_attention_layers)
    if chunk.last:
        found.append(_small(rank.width, trains or rank.trains_also("norms", "text")))
        found.append(Tensor(padded_rows(text.vocab_size, tensor) // tensor * rank.width, trains))
    return found


def _small(elements: int, trains: bool, per_head: bool = False) -> Tensor:
    return Tensor(elements, trains, whole=True, per_head=per_head, partial=True)


def _layer(rank: Rank, cross: bool) -> list[Tensor]:
    text, width, tensor = rank.model.text, rank.width, rank.tensor
    part = "cross_layers" if cross else "text"
    trains = part in rank.gradients.parts and rank.decodes
    norms, gates = trains or rank.trains_also("norms", part), trains or rank.trains_also("gates", part)
    keys, inner = 2 * text.num_key_value_heads * text.head_dim, text.intermediate_size
    columns = {"linear_q": width, "linear_kv": keys} if cross else {"linear_qkv": width + keys}
    columns |= {"linear_fc1": 2 * inner}
    rows = {"linear_proj": width, "linear_fc2": inner}
    found = [Tensor(size * width // tensor, trains, matrix=True) for size in (*columns.values(), *rows.values())]
    found += [_small(width, norms)] * 2
    if cross:
        found += [_small(1, gates)] * 2
        found += [_small(text.head_dim, norms, per_head=True)] * 2
    low = rank.config.lora.rank
    for name in rank.adapted(part):
        shared = (columns | rows)[name] * low // tensor
        # Frames are whole on every rank, so the gradient of their adapter's first factor is too.
        found += [Tensor(width * low, True, whole=True, partial=name != "linear_kv"), Tensor(shared, True)]
    return found


@cache
def _vision_sizes(config: VideoMllamaConfig) -> tuple[tuple[str, int], ...]:
    """Names and elements of the tower's and the projector's parameters."""
    return tuple((name, prod(shape)) for name, shape in hf_shapes(config).items() if not name.startswith("language_model."))


def vision_tensors(rank: Rank) -> list[Tensor]:
    """Of the vision unit, equal on all ranks; in the warm start with the patch classifier."""
    config = rank.model
    found = [Tensor(size, _vision_trains(rank, name)) for name, size in _vision_sizes(config)]
    if not rank.decodes:
        classes = rank.config.stage.dense_classes + config.vision.tokens_per_frame - 1
        found += [Tensor(classes * config.vision.output_dim, True), Tensor(classes, True)]
    width, inner, low = config.vision.hidden_size, config.vision.intermediate_size, rank.config.lora.rank
    layers = config.vision.num_hidden_layers + config.vision.num_global_layers
    for name in rank.adapted("vision_tower"):
        sides = {"fc1": (width, inner), "fc2": (inner, width)}.get(name, (width, width))
        found += [Tensor(side * low, True) for side in sides] * layers
    return found


def _vision_trains(rank: Rank, name: str) -> bool:
    """Whether a parameter of the vision unit does, by its published name."""
    if name.startswith("multi_modal_projector."):
        return "projector" in rank.gradients.parts
    if rank.trains_also("norms", "vision_tower") and "norm" in name.split(".")[-2]:
        return True
    gate = name.endswith((".gate_attn", ".gate_ffn"))
    return "vision_tower" in rank.gradients.parts or (gate and rank.trains_also("gates", "vision_tower"))
