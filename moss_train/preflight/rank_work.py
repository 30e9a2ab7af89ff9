"""What a rank does in the check: a product on its GPU, an all-reduce with the others."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from moss_train.parallel.network import choose_interface

SIZE = 4096
"""Rows and columns of the matrices."""
PRODUCTS = 200
TIMED = 5
"""All-reduces whose times are taken, after one that connects."""


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What `RankProcesses` does with a job: its `kind` is matmul or allreduce."""
    for name, value in job["environment"].items():
        os.environ.setdefault(name, value)
    torch.set_num_threads(1)
    if job["device"] == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device")
        torch.cuda.set_device(job["local_rank"])
    return multiply() if job["kind"] == "matmul" else reduce_all(job)


def multiply() -> dict[str, Any]:
    """One product of bf16 matrices many times on the current GPU.

    Returns:
        `model` of the GPU, `digest` of the product's bits, `tflops` (10^12 operations a second).

    Raises:
        RuntimeError: two products differ.
    """
    generator = torch.Generator().manual_seed(20)
    left, right = (torch.randn(SIZE, SIZE, generator=generator).to(torch.bfloat16).cuda() for _ in range(2))
    first = left @ right
    for _ in range(20):
        last = left @ right
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(PRODUCTS):
        last = left @ right
    end.record()
    torch.cuda.synchronize()
    if not torch.equal(first, last):
        raise RuntimeError("the same product of matrices gave two results")
    bits = last.cpu().view(torch.uint8).numpy().tobytes()
    tflops = 2 * SIZE**3 * PRODUCTS / (begin.elapsed_time(end) / 1e3) / 1e12
    return {"model": torch.cuda.get_device_name(), "digest": hashlib.sha256(bits).hexdigest()[:16], "tflops": tflops}


def reduce_all(job: dict[str, Any]) -> dict[str, Any]:
    """All-reduces of `mib` MiB of float32 over `world` ranks, which meet under `prefix` of the store.

    Returns:
        `seconds` of one, in the middle of some; `right`: whether every element of the first is exact.
    """
    os.environ["MASTER_ADDR"] = job["host"]
    choose_interface()
    rank, world, limit = job["rank"], job["world"], timedelta(seconds=job["seconds"])
    device = torch.device(job["device"])
    store = dist.TCPStore(job["host"], job["port"], is_master=False, timeout=limit)  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(job["prefix"], store),  # type: ignore[attr-defined]
        rank=rank,
        world_size=world,
        timeout=limit,
    )
    pattern = torch.arange(max(1, int(job["mib"] * 2**18)), device=device).remainder_(16).float()
    buffer = pattern * _weight(rank)
    dist.all_reduce(buffer)
    right = torch.equal(buffer, pattern * sum(map(_weight, range(world))))
    seconds = []
    for _ in range(TIMED):
        torch.mul(pattern, _weight(rank), out=buffer)
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(buffer)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    dist.barrier()
    dist.destroy_process_group()
    return {"seconds": statistics.median(seconds), "right": right}


def _weight(rank: int) -> int:
    """Small whole numbers, so that sums over thousands of ranks are exact in float32."""
    return rank % 7 + 1
