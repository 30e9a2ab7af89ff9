"""What a run's precision asks of the machine and of its own sizes, refused before anything is built."""

from __future__ import annotations

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.fp8 import check_rows, fp8_device_problem, fp8_problem
from model.text.provider import ModuleProvider, choose_provider
from moss_train.config.schema import RunConfig
from moss_train.frames.settings import fp8_of_tower


def provider_of(config: RunConfig) -> ModuleProvider:
    """The modules of the decoder's layers.

    Raises:
        InputError: modules or fp8 that this machine does not have, or rows that fp8 does not take.
    """
    precision, sizes = config.precision, config.parallel
    if precision.fp8_vision:
        problem = fp8_problem() if fp8_of_tower(config) == "linears" else fp8_device_problem()
        if problem is not None:
            raise InputError(f"precision.fp8_vision is true, but {problem}; use precision.fp8_vision=false")
    provider = choose_provider(
        config.modules,
        dtype=precision.dtype,
        fp8=precision.fp8,
        fp8_cross_layers=precision.fp8_cross_layers,
        fuse_norms=config.lora.rank == 0,
        head_dim=VideoMllamaConfig.from_dict(config.model).text.head_dim,
    )
    if precision.fp8 != "none" and config.stage.objective != "dense_labels":
        check_rows(config.stage.sequence_length, sizes.context * (sizes.tensor if sizes.sequence_parallel else 1))
    return provider
