"""Which layers a pipeline stage has, and which sizes a model can be split into. Imports neither torch nor megatron-core."""

from __future__ import annotations

from collections.abc import Sequence

from model.config import TextConfig
from model.errors import InputError


def layers_per_stage(num_layers: int, stages: int) -> list[int]:
    """Splits the layers as evenly as possible; the first stages take what remains, the last one has the head.

    Raises:
        InputError: more stages than layers.
    """
    if stages > num_layers:
        raise InputError(
            f"text.num_hidden_layers is {num_layers}, fewer than the {stages} pipeline stages "
            "(parallel.pipeline x parallel.virtual_pipeline); lower one of them"
        )
    least, rest = divmod(num_layers, stages)
    return [least + (stage < rest) for stage in range(stages)]


def check_stage_layers(num_layers: int, stages: int, stage_layers: Sequence[int]) -> None:
    """Refuses layers of pipeline stages that do not fit.

    Raises:
        InputError: another number of entries than stages, a stage without a layer, or another sum than all layers.
    """
    shown = f"parallel.stage_layers is {list(stage_layers)}"
    if len(stage_layers) != stages:
        raise InputError(
            f"{shown}, {len(stage_layers)} entries for {stages} stages (parallel.pipeline x parallel.virtual_pipeline); "
            "give one entry a stage"
        )
    if min(stage_layers) < 1:
        raise InputError(f"{shown}; every stage needs at least 1 layer")
    if sum(stage_layers) != num_layers:
        raise InputError(
            f"{shown}, which sums to {sum(stage_layers)}, but text.num_hidden_layers is {num_layers}; make them equal"
        )


def check_parallel(text: TextConfig, tensor: int, pipeline: int, virtual_pipeline: int) -> None:
    """Refuses sizes that the model cannot be split into.

    Raises:
        InputError: tensor-parallel ranks that do not divide heads or widths, or virtual stages without stages.
    """
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        value = getattr(text, name)
        if value % tensor:
            raise InputError(f"parallel.tensor is {tensor}, which does not divide text.{name} {value}; choose a divisor")
    if virtual_pipeline > 1 and pipeline == 1:
        raise InputError(f"parallel.virtual_pipeline is {virtual_pipeline} with parallel.pipeline 1; it needs pipeline stages")
