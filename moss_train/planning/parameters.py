"""Parameters of the model, of one rank of a layout, and of what trains of them. Counted from the dimensions alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from model.text.stages import layers_per_stage
from model.vocabulary import padded_rows
from moss_train.config.schema import LoraConfig, ParallelConfig, StageConfig
from moss_train.planning.flops import TARGETS, Gradients


@dataclass(frozen=True)
class Parameters:
    """Numbers of elements by part; `text` is the decoder without the parts that have a name of their own."""

    vision_tower: int = 0
    projector: int = 0
    text: int = 0
    cross_layers: int = 0
    embedding: int = 0
    head: int = 0

    @property
    def total(self) -> int:
        return self.vision + self.decoder

    @property
    def vision(self) -> int:
        """Tower and projector, which every rank has."""
        return self.vision_tower + self.projector

    @property
    def decoder(self) -> int:
        return self.text + self.cross_layers + self.embedding + self.head

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Stage:
    """What one pipeline stage holds, over all its virtual stages."""

    selfs: int
    """Self layers."""
    crosses: int
    first: bool
    """Whether it embeds."""
    last: bool
    """Whether it has the head."""
    layers: tuple[tuple[int, ...], ...]
    """Indices of its layers, by virtual stage."""


def pipeline_stages(config: VideoMllamaConfig, parallel: ParallelConfig) -> list[Stage]:
    """The stages of a layout, in order.

    Raises:
        InputError: more stages than layers.
    """
    text, pipeline = config.text, parallel.pipeline
    pieces = pipeline * parallel.virtual_pipeline
    counts = parallel.stage_layers or layers_per_stage(text.num_hidden_layers, pieces)
    bounds = [sum(counts[:i]) for i in range(pieces + 1)]
    stages = []
    for stage in range(pipeline):
        layers = tuple(tuple(range(bounds[i], bounds[i + 1])) for i in range(stage, pieces, pipeline))
        everything = [index for part in layers for index in part]
        crosses = sum(index in text.cross_attention_layers for index in everything)
        stages.append(Stage(len(everything) - crosses, crosses, stage == 0, stage == pipeline - 1, layers))
    return stages


def layers_again(config: VideoMllamaConfig, parallel: ParallelConfig) -> frozenset[int]:
    """Indices over the whole decoder of the layers that the backward pass computes again."""
    if parallel.recompute != "full":
        return frozenset()
    pieces = [part for stage in pipeline_stages(config, parallel) for part in stage.layers]
    return frozenset(index for part in pieces for index in part[: parallel.recompute_layers])


def share_again(config: VideoMllamaConfig, parallel: ParallelConfig) -> float:
    """Share of the decoder's layers that the backward pass computes again."""
    return len(layers_again(config, parallel)) / config.text.num_hidden_layers


def model_parameters(config: VideoMllamaConfig) -> Parameters:
    """The whole model: 10,670,220,835 at 11B."""
    return stage_parameters(config, pipeline_stages(config, ParallelConfig())[0], 1)


def stage_parameters(config: VideoMllamaConfig, stage: Stage, tensor: int) -> Parameters:
    """Of one rank of a stage: matrices are split over the tensor-parallel ranks, norms and gates are not, tower and projector
    are whole on every rank."""
    text = config.text
    width = text.hidden_size
    return Parameters(
        vision_tower=_tower(config),
        projector=config.vision.output_dim * width + width,
        text=stage.selfs * (self_matrices(config) // tensor + 2 * width) + stage.last * width,
        cross_layers=stage.crosses * (_cross_matrices(config) // tensor + 2 * width + 2 * text.head_dim + 2),
        embedding=stage.first * padded_rows(text.embedding_rows, tensor) // tensor * width,
        head=stage.last * padded_rows(text.vocab_size, tensor) // tensor * width,
    )


def trained_parameters(
    config: VideoMllamaConfig, stage: Stage, tensor: int, training: StageConfig, lora: LoraConfig
) -> tuple[Parameters, Parameters]:
    """Of one rank: what trains of the model's own parameters, and adapters, which come on top of them."""
    have = stage_parameters(config, stage, tensor)
    gradients = Gradients.of(config, training, lora)
    parts = gradients.parts
    if lora.rank:
        small = _norms_and_gates(config, stage, lora, gradients)
        projector = have.projector * ("projector" in parts)
        return small + Parameters(projector=projector), _adapters(config, stage, tensor, lora, gradients)
    trained = Parameters(
        vision_tower=have.vision_tower * ("vision_tower" in parts),
        projector=have.projector * ("projector" in parts),
        text=have.text * ("text" in parts),
        cross_layers=have.cross_layers * ("cross_layers" in parts),
        embedding=have.embedding * ("text" in parts),
        head=have.head * ("text" in parts),
    )
    return trained, Parameters()


def _norms_and_gates(config: VideoMllamaConfig, stage: Stage, lora: LoraConfig, gradients: Gradients) -> Parameters:
    """What `lora.train_also` adds in the parts that train."""
    norms, gates = "norms" in lora.train_also, "gates" in lora.train_also
    text, vision = config.text, config.vision
    moved = gradients.moved
    layers = vision.num_hidden_layers + vision.num_global_layers
    tower = norms * 4 * vision.hidden_size * (layers + 1) + gates * 2 * vision.num_global_layers
    cross = norms * 2 * (text.hidden_size + text.head_dim) + gates * 2
    return Parameters(
        vision_tower=tower * ("vision_tower" in moved),
        text=norms * text.hidden_size * (2 * stage.selfs + stage.last) * ("text" in moved),
        cross_layers=stage.crosses * cross * ("cross_layers" in moved),
    )


def _adapters(config: VideoMllamaConfig, stage: Stage, tensor: int, lora: LoraConfig, gradients: Gradients) -> Parameters:
    """A column-parallel layer's A and a row-parallel layer's B are whole on every rank."""
    text, vision = config.text, config.vision
    width, inner, keys = text.hidden_size, text.intermediate_size, 2 * text.num_key_value_heads * text.head_dim
    sides = {
        "attention_qkv": width + (width + keys) // tensor, "attention_proj": width // tensor + width,
        "cross_q": width + width // tensor, "cross_kv": width + keys // tensor, "cross_proj": width // tensor + width,
        "mlp_fc1": width + 2 * inner // tensor, "mlp_fc2": inner // tensor + width,
        "vision_attention": 8 * vision.hidden_size, "vision_mlp": 2 * (vision.hidden_size + vision.intermediate_size),
    }  # fmt: skip
    layers = vision.num_hidden_layers + vision.num_global_layers
    counts = {"text": stage.selfs, "cross_layers": stage.crosses, "vision_tower": layers}
    each = {
        part: lora.rank * counts[part] * sum(sides[t] for t in lora.targets if t in targets) * (part in gradients.moved)
        for part, targets in TARGETS.items()
    }
    return Parameters(**each)


def self_matrices(config: VideoMllamaConfig) -> int:
    """Elements of the matrices of one self layer."""
    text = config.text
    return text.hidden_size * (2 * text.hidden_size + 2 * text.num_key_value_heads * text.head_dim + 3 * text.intermediate_size)


def _cross_matrices(config: VideoMllamaConfig) -> int:
    return self_matrices(config)  # queries, keys and values of other rows, of the same shapes


def _tower(config: VideoMllamaConfig) -> int:
    vision = config.vision
    width, inner, rows = vision.hidden_size, vision.intermediate_size, vision.max_aspect_ratio_id + 1
    layer = 4 * width**2 + 2 * width * inner + inner + 5 * width
    tiles = rows * vision.max_num_tiles * width
    positions = vision.num_positions * width
    return (
        (vision.num_hidden_layers + vision.num_global_layers) * layer
        + 2 * vision.num_global_layers
        + vision.num_channels * vision.patch_size**2 * width
        + width
        + 2 * (tiles + 1)
        + positions + 1 + tiles * vision.num_positions
        + 4 * width
    )  # fmt: skip


def added(parts: Iterable[Parameters]) -> Parameters:
    """Sum."""
    return sum(parts, Parameters())
