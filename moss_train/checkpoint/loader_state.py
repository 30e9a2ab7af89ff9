"""The place in the data inside a checkpoint: one file a replica, read as one state for any number of replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist

from data_pipeline.loader.state import merge_states
from model.errors import InputError
from moss_train.checkpoint.torch_file import read_torch_file


def loader_file(replica: int) -> str:
    """`loader_00003.pt` for 3."""
    return f"loader_{replica:05d}.pt"


def read_loader_state(checkpoint: Path, data_size: int) -> Any:
    """The merged state, read by the first rank; every rank calls it.

    Args:
        data_size: replicas that wrote the checkpoint.

    Returns:
        What `load_state_dict` of a loader takes; None where no replica saved a state.

    Raises:
        InputError: on every rank, where a file is missing, damaged or from elsewhere.
    """
    found: list[Any] = [None, None]
    if dist.get_rank() == 0:  # one reader: the files are as many as the replicas
        try:
            found[0] = merged_loader_state(checkpoint, data_size)
        except InputError as error:
            found[1] = str(error)
    dist.broadcast_object_list(found, src=0)
    state, refusal = found
    if refusal is not None:
        raise InputError(refusal)
    return state


def merged_loader_state(checkpoint: Path, data_size: int) -> Any:
    """As `read_loader_state`, in one process alone.

    Raises:
        InputError: a file is missing, damaged or from elsewhere.
    """
    names = [loader_file(replica) for replica in range(data_size)]
    surplus = sorted(path.name for path in checkpoint.glob("loader_*.pt") if path.name not in names)
    if surplus:
        raise InputError(
            f"{checkpoint} holds {surplus[0]} though {data_size} data-parallel replicas wrote it; "
            "it mixes files of several checkpoints, copy it again or use an earlier one"
        )
    states = [read_torch_file(checkpoint / name) for name in names]
    if all(state is None for state in states):
        return None
    return merge_states(states, f"the place in the data in {checkpoint}")
