"""What NCCL's flight recorder knows, on a GPU, where collectives run behind the host's back."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch


def _entries() -> list[dict[str, Any]]:
    """The last collectives of this rank, oldest first; nothing where NCCL is not there or records nothing."""
    if not torch.cuda.is_available():
        return []
    dump = getattr(torch._C._distributed_c10d, "_dump_nccl_trace_json", None)
    if dump is None:
        return []
    with contextlib.suppress(Exception):  # whatever a broken communicator raises must not hide the stacks
        entries: list[dict[str, Any]] = json.loads(dump(includeCollectives=True, onlyActive=False)).get("entries", [])
        return entries
    return []


def pending_collective() -> str:
    """Name of the oldest collective that has begun and not ended; empty for none."""
    for entry in _entries():
        if entry.get("state") not in (None, "completed"):
            return str(entry.get("profiling_name", "")).removeprefix("nccl:")
    return ""


def write_trace(path: Path) -> None:
    """All entries beside the stacks, if there are any."""
    if entries := _entries():
        with contextlib.suppress(OSError):
            path.write_text(json.dumps(entries, indent=1), encoding="utf-8")
