"""Starting and ending torch.distributed for a run, under torchrun or in a single process."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist

from model.errors import InputError
from moss_train.parallel.network import choose_interface
from moss_train.platform.device import backend_of

TIMEOUT = timedelta(minutes=60)
"""Longest wait in one collective. In training the watchdog and the ranks' pulses (moss_train/guards) end a run long before it."""

_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def under_torchrun() -> bool:
    """Whether a launcher has set up this process as one rank of several (or of one)."""
    return all(name in os.environ for name in _TORCHRUN_VARIABLES)


def start_world(device: torch.device) -> None:
    """Initialise the default process group; does nothing when it is there already.

    Without a launcher the process becomes a world of one rank that needs no port.
    """
    if dist.is_initialized():
        return
    backend = backend_of(device)
    if under_torchrun():
        choose_interface()
        _meet(backend)
        return
    partial = [name for name in _TORCHRUN_VARIABLES[:2] if name in os.environ]
    if partial:
        raise InputError(
            f"the environment has {' and '.join(partial)} but not all of {', '.join(_TORCHRUN_VARIABLES)}; "
            "start with torchrun or unset them"
        )
    with tempfile.NamedTemporaryFile(prefix="moss_world_", delete=False) as store:
        path = store.name
    dist.init_process_group(backend, init_method=f"file://{path}", rank=0, world_size=1, timeout=TIMEOUT)


def _meet(backend: str) -> None:
    """Find the other ranks over the launcher's store."""
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        dist.init_process_group(backend, timeout=TIMEOUT)
        return
    # torchrun's own store still holds the addresses of the ranks that ended: new ones would call them and wait.
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, is_master=False, timeout=TIMEOUT)  # type: ignore[attr-defined]
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f"moss/restart/{restarts}", store),  # type: ignore[attr-defined]
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=TIMEOUT,
    )


def stop_world() -> None:
    """Destroy the default process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
