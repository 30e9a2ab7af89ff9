"""What this device reaches: a copy in memory, a large matrix product, and products that do not end."""

from __future__ import annotations

from typing import Any

import torch

from inference.benchmark.bench import Bench
from inference.benchmark.meter import Meter, repeat
from inference.benchmark.surroundings import clocks


def copy_bandwidth(meter: Meter, device: torch.device, elements: int, runs: int = 10) -> float:
    """Bytes a second, read and written ones together, of copying so many fp32 numbers."""
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    seconds = repeat(meter, lambda: target.copy_(source), runs, warm_up=2)
    return 2 * 4 * elements / min(seconds)


def product_flops(meter: Meter, device: torch.device, dtype: torch.dtype, size: int, runs: int = 10) -> float:
    """Operations a second of a product of two square matrices."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    seconds = repeat(meter, lambda: a @ b, runs, warm_up=2)
    return 2.0 * size**3 / min(seconds)


def sustained_product(
    meter: Meter, device: torch.device, dtype: torch.dtype, rows: int, width: int, seconds: float
) -> dict[str, Any]:
    """The same of the tower's MLP without pause, [rows, width] x [4 width, width]: a GPU lowers its clock at its power limit.

    Returns:
        `flops` a second in the last tenth of the time, and the clock and power then, as the driver tells them.
    """
    x = torch.randn(rows, width, device=device, dtype=dtype)
    weight = torch.randn(4 * width, width, device=device, dtype=dtype)
    begin, speeds, calls = meter.now(), [], 20

    def products() -> None:
        for _ in range(calls):
            torch.nn.functional.linear(x, weight)

    while meter.now() - begin < seconds:
        speeds.append(calls * 8.0 * rows * width**2 / repeat(meter, products, 1, warm_up=0)[0])
    for _ in range(10):
        products()
    under_load = clocks(device)  # asked while products run
    meter.sync()
    last = speeds[-max(1, len(speeds) // 10) :]
    return {"seconds": seconds, "flops": sum(last) / len(last), "first_flops": speeds[0], "clocks": under_load}


def measure(bench: Bench) -> dict[str, Any]:
    """All at sizes that fill a GPU, or small ones for a CPU."""
    large = bench.device.type == "cuda"
    rows, width, seconds = (51_456, 1280, 1.5) if large else (64, 32, 0.02)
    return {
        "bytes_per_second": copy_bandwidth(bench.meter, bench.device, 1 << (30 if large else 20)),
        "flops": product_flops(bench.meter, bench.device, bench.dtype, 8192 if large else 256),
        "sustained": sustained_product(bench.meter, bench.device, bench.dtype, rows, width, seconds),
        "held_against": {
            "name": bench.chip.name,
            "bytes_per_second": bench.chip.bytes_per_second,
            "flops": bench.chip.flops,
            "fp8_flops": bench.chip.fp8_flops,
        },
    }
