"""Whether the sizes of the parallel groups, the global batch and the readers fit the number of ranks. Imports no torch."""

from __future__ import annotations

from model.errors import InputError
from moss_train.config.schema import ParallelConfig, RunConfig


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


def check_batch(config: RunConfig, data: int) -> int:
    """Micro-batches of each of `data` data-parallel replicas in a step.

    Raises:
        InputError: the global batch cannot be shared out evenly, or virtual stages cannot work on the shares.
    """
    parallel = config.parallel
    count, rest = divmod(config.train.global_batch_size, data)
    if rest or not count:
        raise InputError(
            f"train.global_batch_size is {config.train.global_batch_size}, not a multiple of the {data} data-parallel replicas; "
            f"choose a multiple of {data}"
        )
    if parallel.virtual_pipeline > 1 and count % parallel.pipeline:
        raise InputError(
            f"each replica has {count} micro-batches in a step, not a multiple of parallel.pipeline {parallel.pipeline} as "
            "parallel.virtual_pipeline needs; change train.global_batch_size"
        )
    return count


def check_world(config: RunConfig, world_size: int) -> int:
    """Data-parallel replicas of a run on so many ranks, which it may have begun on others.

    Raises:
        InputError: sizes, global batch or readers that do not fit, the first of them.
    """
    data = check_sizes(config.parallel, world_size)
    check_batch(config, data)
    if config.data.global_data_workers % data:
        raise InputError(
            f"data.global_data_workers is {config.data.global_data_workers}, which {data} data-parallel replicas cannot share; "
            f"choose a multiple of {data} before the run begins"
        )
    return data
