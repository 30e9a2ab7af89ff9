"""Where something was measured: machine, versions, and the limits that its numbers are held against."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.benchmark.roofline import Chip, chip_named

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "triton", "transformers", "flash-attn", "transformer-engine", "av", "numpy")
"""Whose versions are written beside the numbers."""


def chip_for(device: torch.device) -> Chip:
    """The limits that numbers are held against."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return chip_named(name)


def surroundings(device: torch.device) -> dict[str, Any]:
    """Command, date, hardware, clocks and versions."""
    import torch

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    hardware: dict[str, Any] = {"device": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        hardware = {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "clocks": clocks(device),
        }
        versions["cuda"] = str(torch.version.cuda)
    command = "python -m inference.benchmark" if "inference" in Path(sys.argv[0]).parts else "moss"
    return {
        "command": f"{command} {shlex.join(sys.argv[1:])}",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware,
        "versions": versions,
    }


def clocks(device: torch.device) -> str:
    """The driver's own line of clocks, power and temperature; '' on a CPU, or where its program is missing."""
    if device.type != "cuda":
        return ""
    query = "clocks.sm,clocks.mem,power.draw,temperature.gpu,driver_version"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", f"--id={device.index or 0}"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
