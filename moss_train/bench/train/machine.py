"""What the chip reaches at the time of the measurement: a large product, the same for a second, a copy; its clocks and power."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import fmean
from typing import Any

import torch

from moss_train.planning.flops import gpu_of

SIZE = 8192
QUERY = "clocks.sm,power.draw,temperature.gpu"


class ClockLog:
    """Asks the driver's program for clock, power and temperature every fifth of a second while something runs.

    Args:
        device: a CPU, or a machine without that program, has nothing to tell.
    """

    def __init__(self, device: torch.device) -> None:
        unbuffered = ["stdbuf", "-oL"] if shutil.which("stdbuf") else []  # what is buffered when it ends is lost
        self._command = [*unbuffered, "nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", "-lms", "200"]
        self._command.append(f"--id={_identity(device)}")
        self._cuda = device.type == "cuda"
        self._process: subprocess.Popen[str] | None = None
        self.means: dict[str, float] | None = None
        """`mhz`, `watts`, `celsius` over the time, the first answer left out; None where nothing was told."""

    def __enter__(self) -> ClockLog:
        if self._cuda:
            with suppress(OSError):
                self._process = subprocess.Popen(
                    self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            lines = self._process.communicate(timeout=10)[0].splitlines()
            self.means = means_of(lines)


def means_of(lines: list[str]) -> dict[str, float] | None:
    """Means of the driver's lines `clock, power, temperature`, the first left out if there are more."""
    rows = []
    for line in lines:
        with suppress(ValueError):
            row = [float(part) for part in line.split(",")]
            if len(row) == 3:
                rows.append(row)
    rows = rows[1:] or rows
    if not rows:
        return None
    return {
        name: round(fmean(column), 1) for name, column in zip(("mhz", "watts", "celsius"), zip(*rows, strict=True), strict=True)
    }


def _identity(device: torch.device) -> str:
    """What the driver's program calls the device: visible devices are numbered anew by CUDA, not by it."""
    if device.type != "cuda":
        return "0"
    with suppress(AttributeError):
        return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return str(device.index or 0)


def measure(device: torch.device, seconds: float = 1.0) -> dict[str, Any]:
    """Rates of this device.

    Args:
        seconds: of products without a pause: at its power limit a GPU lowers its clock.

    Returns:
        `peak_flops` (the vendor's, dense bf16; None for a device that the table does not have), `product_flops` momentary,
        `sustained_flops` of the last tenth of the time with `clocks` meanwhile, `fp8_product_flops` (None where there is none),
        `copy_bytes_per_second` read and written; all a second.
    """
    cuda = device.type == "cuda"
    size, seconds = (SIZE, seconds) if cuda else (256, min(seconds, 0.05))
    dtype = torch.bfloat16 if cuda else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))  # [size, size]
    gpu = gpu_of(torch.cuda.get_device_name(device)) if cuda else None
    work = 2.0 * size**3
    found: dict[str, Any] = {
        "size": size,
        "peak_flops": None if gpu is None else gpu.bf16,
        "product_flops": work / _least(lambda: a @ b, cuda),
        "fp8_product_flops": _fp8(a, b, work) if cuda else None,
        "copy_bytes_per_second": _copy(device, 1 << (28 if cuda else 18)),
    }
    with ClockLog(device) as log:
        speeds = _sustained(lambda: a @ b, work, seconds, cuda)
    last = speeds[-max(1, len(speeds) // 10) :]
    return {**found, "sustained_seconds": seconds, "sustained_flops": fmean(last), "clocks": log.means}


def _sustained(product: Callable[[], object], work: float, seconds: float, cuda: bool, calls: int = 20) -> list[float]:
    """Operations a second of group after group of products, until the time is up."""
    begin = time.perf_counter()
    speeds: list[float] = []
    while not speeds or time.perf_counter() - begin < seconds:
        since = time.perf_counter()
        for _ in range(calls):
            product()
        _sync(cuda)
        speeds.append(calls * work / (time.perf_counter() - since))
    return speeds


def _copy(device: torch.device, elements: int) -> float:
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * elements / _least(lambda: target.copy_(source), device.type == "cuda")


def _fp8(a: torch.Tensor, b: torch.Tensor, work: float) -> float | None:
    """Of a product in fp8 with one scale a tensor and fast accumulation."""
    one = torch.ones((), device=a.device)
    left, right = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()  # right: columns in memory, as the product wants
    try:
        return work / _least(
            lambda: torch._scaled_mm(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True), True
        )
    except RuntimeError:
        return None  # no fp8 on this device


def _least(call: Callable[[], object], cuda: bool, repeats: int = 10) -> float:
    """Seconds of the quickest of some calls, by events on a GPU."""
    found = []
    for turn in range(repeats + 2):
        if cuda:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            call()
            last.record()
            last.synchronize()
            seconds = float(first.elapsed_time(last)) / 1e3
        else:
            begin = time.perf_counter()
            call()
            seconds = time.perf_counter() - begin
        if turn >= 2:
            found.append(seconds)
    return min(found)


def _sync(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()
