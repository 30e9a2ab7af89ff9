"""The `deepspeed` package made ready for a process whose groups exist already: quiet, without compilers or MPI."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import torch

from model.errors import InputError

MINIMUM = (0, 19)


def load_deepspeed(device: torch.device) -> Any:
    """Import the package for one kind of device.

    Args:
        device: where the model lives; DeepSpeed chooses its accelerator once in a process.

    Raises:
        InputError: it is not installed, or older than what this engine was written for.
    """
    if device.type == "cpu":
        # Else it looks for vendors' extensions, and takes a GPU that the run does not use.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        # Else it counts its devices by starting the program `numactl`, under stage 3 for every reduction of gradients.
        os.environ.setdefault("LOCAL_SIZE", os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.environ.setdefault("LOCAL_RANK", "0")  # asked for even in a world of one rank
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\..*")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"deepspeed\..*")
    try:
        import deepspeed
    except ImportError as error:
        raise InputError(
            f"engine is deepspeed but the package cannot be imported ({error}); pip install 'moss-train[deepspeed]', or use "
            "engine=megatron"
        ) from None
    if tuple(int(part) for part in deepspeed.__version__.split(".")[:2]) < MINIMUM:
        raise InputError(
            f"engine is deepspeed with version {deepspeed.__version__} of the package, which is older than "
            f"{MINIMUM[0]}.{MINIMUM[1]}; pip install -U 'moss-train[deepspeed]'"
        )
    from deepspeed.utils import groups, logger

    logger.setLevel(logging.WARNING)
    if device.type == "cpu":
        # A C++ extension for collectives in shared memory: gloo does without a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    groups._WORLD_GROUP = None  # of an earlier run in this process, whose groups are gone
    return deepspeed
