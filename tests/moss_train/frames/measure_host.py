"""Rates of host memory on a GPU: pages locked, states out and back, and a product beside the copies.

Usage: python -m tests.moss_train.frames.measure_host [GiB]. Prints one line for each; about 10 s with 8 GiB.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from moss_train.frames.host_memory import GIB, ON_THE_WAY, HostMemory

STATE = 256 * 2**20
SIDE, PRODUCTS = 8192, 200


def _seconds(work: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def main(gib: int) -> None:
    """Measure and print."""
    device = torch.device("cuda", 0)
    memory, count = HostMemory(gib * GIB, device), gib * GIB // STATE
    states = [torch.zeros(STATE, dtype=torch.uint8, device=device) for _ in range(2)]
    left, right = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device=device) for _ in range(2))

    def out() -> None:
        memory.used = 0
        for number in range(count):
            memory.store(states[number % 2])

    def back() -> None:
        for number in range(count):
            values, event = memory.load(number * STATE, STATE)
            memory.wait(event)
            del values

    def products() -> None:
        for _ in range(PRODUCTS):
            left @ right

    def beside() -> None:
        memory.limit = memory.size  # nothing waits for a copy
        out()
        products()

    first = _seconds(out)
    moved = count * STATE / 1e9
    alone = _seconds(out)
    print(f"pages locked: {moved / max(first - alone, 1e-9):.1f} GB/s", flush=True)
    print(f"out {moved / alone:.1f} GB/s, back {moved / _seconds(back):.1f} GB/s", flush=True)
    _seconds(products)
    single, both = _seconds(products), _seconds(beside)
    memory.settle(ON_THE_WAY)
    print(f"products {single:.3f} s, copies {alone:.3f} s, both {both:.3f} s (the longer of them if they overlap)", flush=True)
    memory.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
