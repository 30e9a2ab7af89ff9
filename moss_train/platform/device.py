"""Which device a run uses and which communication backend belongs to it."""

from __future__ import annotations

import os

import torch

from model.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Turn `auto | cpu | cuda` into this rank's device; on CUDA the local rank picks the GPU and makes it current.

    Raises:
        InputError: cuda asked for where there is none, cpu where megatron-core would use a GPU, or more local
            ranks than GPUs.
    """
    available = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not available):
        if available:
            raise InputError(
                "device is 'cpu' but this machine has CUDA; start with CUDA_VISIBLE_DEVICES= (empty) in the environment"
            )
        return torch.device("cpu")
    if not available:
        raise InputError(f"device is {name!r} but torch finds no CUDA device; use device=cpu or install a CUDA build of torch")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank >= torch.cuda.device_count():
        raise InputError(f"local rank {local_rank} has no GPU: {torch.cuda.device_count()} are visible; lower --nproc-per-node")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def backend_of(device: torch.device) -> str:
    """`nccl` for CUDA, `gloo` for the CPU."""
    return "nccl" if device.type == "cuda" else "gloo"
