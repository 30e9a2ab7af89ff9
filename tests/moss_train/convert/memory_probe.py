"""A process that converts and prints the bytes that it held at most, above what it held before. `DIRECTION SOURCE TARGET`."""

from __future__ import annotations

import sys
from pathlib import Path

import rich.progress  # noqa: F401 - what the conversion imports is no part of what it holds

from model.config import VideoMllamaConfig
from model.conversion.table import hf_shapes
from moss_train.convert.from_hf import hf_to_checkpoint
from moss_train.convert.to_hf import checkpoint_to_hf


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes; pages of mapped files count."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(direction: str, source: Path, target: Path) -> None:
    """Prints the growth."""
    hf_shapes(VideoMllamaConfig())  # imports more
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    before = resident("VmRSS")
    if direction == "from-hf":
        hf_to_checkpoint(source, target)
    else:
        checkpoint_to_hf(source, target)
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
