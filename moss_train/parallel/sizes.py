"""Whether the sizes of the parallel groups fit the number of ranks. Imports no torch."""

from __future__ import annotations

from model.errors import InputError
from moss_train.config.schema import ParallelConfig


def check_sizes(sizes: ParallelConfig, world_size: int) -> int:
    """Data-parallel size that the sizes leave of the world.

    Raises:
        InputError: the product of the sizes does not divide the number of ranks, or a combination has no meaning.
    """
    product = sizes.tensor * sizes.pipeline * sizes.context
    if world_size % product:
        raise InputError(
            f"parallel.tensor {sizes.tensor} x parallel.pipeline {sizes.pipeline} x parallel.context {sizes.context} = "
            f"{product} does not divide the {world_size} ranks; start {product} or a multiple of it, or lower the sizes"
        )
    if sizes.virtual_pipeline > 1 and sizes.pipeline == 1:
        raise InputError(
            f"parallel.virtual_pipeline is {sizes.virtual_pipeline} with parallel.pipeline 1; it needs at least 2 pipeline stages"
        )
    stages = sizes.pipeline * sizes.virtual_pipeline
    if sizes.stage_layers is not None and len(sizes.stage_layers) != stages:
        raise InputError(
            f"parallel.stage_layers is {list(sizes.stage_layers)}, {len(sizes.stage_layers)} entries for {stages} stages "
            "(parallel.pipeline x parallel.virtual_pipeline); give one entry a stage"
        )
    if sizes.sequence_parallel and sizes.tensor == 1:
        raise InputError("parallel.sequence_parallel is true with parallel.tensor 1; set parallel.tensor to 2 or more")
    return world_size // product
