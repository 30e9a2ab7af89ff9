"""The adapters inside a checkpoint, read whole whatever layout wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.mapping import ShardedTensor

from model.errors import InputError
from model.lora.adapter import is_adapter_name
from model.lora.merge import Factors

_TOWER = "vision."
"""Prefix of the vision encoder's names in a checkpoint."""


def adapter_keys(names: list[str]) -> dict[str, str]:
    """Checkpoint names of adapted matrices -> the stem to which `.a` and `.b` are added, from all names of a checkpoint."""
    stems = {n.rpartition(".")[0] for n in names if is_adapter_name(n) and n.startswith(("decoder.", _TOWER))}
    return {f"{stem.rpartition('.')[0]}.weight": stem for stem in sorted(stems)}


def read_adapters(checkpoint: Path) -> dict[str, Factors]:
    """All adapters by the name of the matrix that they adapt; every rank calls it and gets all of them.

    Returns:
        megatron-core's names over the whole decoder and the tower's published names; empty where there are none.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    try:
        stored: dict[str, Any] = dist_checkpointing.load_tensors_metadata(str(checkpoint))
        stems = adapter_keys(list(stored))
        wanted = {}
        for key in (f"{stem}.{factor}" for stem in stems.values() for factor in "ab"):
            entry = stored[key]
            empty = torch.empty(entry.global_shape, dtype=entry.dtype)
            wanted[key] = ShardedTensor.from_rank_offsets(key, empty, replica_id=dist.get_rank())
        found: dict[str, Any] = dist_checkpointing.load(wanted, str(checkpoint)) if wanted else {}
    except Exception as error:  # the reader raises whatever its index decoder raises
        raise InputError(f"{checkpoint} cannot be read ({type(error).__name__}: {error}); use an earlier checkpoint") from None
    return {name.removeprefix(_TOWER): Factors(found[f"{stem}.a"], found[f"{stem}.b"]) for name, stem in stems.items()}
