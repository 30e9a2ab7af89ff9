"""What this machine has: GPUs, asked without a CUDA context, and a folder for a run's files."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from model.errors import InputError
from moss_train.planning.flops import PEAK, Gpu, gpu_of

MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Machine:
    """Where the runs go."""

    device: str
    """cuda | cpu"""
    ranks: int
    name: str
    card: int
    """Bytes of a GPU, or what a rank on a CPU is to take."""

    @property
    def gpu(self) -> Gpu | None:
        """The table's row for its name."""
        return gpu_of(self.name)


def this_machine(device: str, ranks: int | None, card: int | None) -> Machine:
    """What is there, as far as the options do not say it.

    Args:
        device: auto | cuda | cpu.
        ranks: None takes all GPUs.
        card: bytes; None takes the GPU's.

    Raises:
        InputError: fewer GPUs than ranks, or a CPU without a number of ranks.
    """
    cards = [] if device == "cpu" else _cards() or _cards_of_torch()
    if device == "cuda" and not cards:
        raise InputError("--device is cuda, but this machine shows no GPU; use --device cpu")
    if not cards:
        return Machine("cpu", ranks or 2, "cpu", card or PEAK["H200"].memory)
    if ranks is not None and ranks > len(cards):
        raise InputError(f"--gpus is {ranks}, and this machine has {len(cards)}; give at most as many")
    name, memory = cards[0]
    return Machine("cuda", ranks or len(cards), name, card or memory)


def _cards() -> list[tuple[str, int]]:
    """Name and bytes of each GPU that this process may use."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        name, _, mebibytes = line.rpartition(",")
        if mebibytes.strip().isdigit():
            found.append((name.strip(), int(mebibytes) * 2**20))
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if seen is None else found[: len([part for part in seen.split(",") if part.strip()])]


def _cards_of_torch() -> list[tuple[str, int]]:
    """The same where there is no nvidia-smi; it costs a context on the first GPU."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = [torch.cuda.get_device_properties(number) for number in range(there)]
    return [(str(card.name), int(card.total_memory)) for card in known]


def visible(machine: Machine, ranks: int) -> str:
    """`CUDA_VISIBLE_DEVICES` of a run on the first so many GPUs."""
    if machine.device == "cpu":
        return ""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = [str(number) for number in range(machine.ranks)] if seen is None else [part.strip() for part in seen.split(",")]
    return ",".join(numbers[:ranks])


def default_folder() -> Path:
    """Memory, where the machine has a file system in it: a disk's speed says nothing of a checkpoint's cost to training."""
    free = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() else 0
    return MEMORY if free > 2**30 else Path(os.environ.get("TMPDIR", "/tmp"))
