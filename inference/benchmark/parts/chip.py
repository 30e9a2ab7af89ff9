"""What this device reaches: a copy in memory and a large matrix product."""

from __future__ import annotations

from typing import Any

import torch

from inference.benchmark.bench import Bench
from inference.benchmark.meter import Meter, repeat


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


def measure(bench: Bench) -> dict[str, Any]:
    """Both, at sizes that fill a GPU, or small ones for a CPU."""
    large = bench.device.type == "cuda"
    return {
        "bytes_per_second": copy_bandwidth(bench.meter, bench.device, 1 << (30 if large else 20)),
        "flops": product_flops(bench.meter, bench.device, bench.dtype, 8192 if large else 256),
        "held_against": {
            "name": bench.chip.name,
            "bytes_per_second": bench.chip.bytes_per_second,
            "flops": bench.chip.flops,
            "fp8_flops": bench.chip.fp8_flops,
        },
    }
