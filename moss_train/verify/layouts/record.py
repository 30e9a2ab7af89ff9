"""The file of a check: everything that was found so far, rewritten with every result, so that an interruption keeps it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import torch

from moss_train.run_folder import versions
from moss_train.verify.layouts.findings import BF16_TOLERANCES, TOLERANCES


class Result(Protocol):
    """What is kept."""

    def as_json(self) -> dict[str, Any]: ...


class Record:
    """Results in a JSON file; `complete` in it says whether all were there.

    Args:
        path: the file; replaced whole each time.
        device: cpu | cuda.
        ranks: the most that are started.
    """

    def __init__(self, path: Path, device: str, ranks: int) -> None:
        self._path = path
        self._results: list[dict[str, Any]] = []
        nccl = ".".join(map(str, torch.cuda.nccl.version())) if device == "cuda" else None
        self._content: dict[str, Any] = {
            "ranks": ranks,
            "gpus": torch.cuda.device_count() if device == "cuda" else 0,
            "versions": versions(ranks) | {"nccl": nccl},
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "torch": torch.__version__,
            "tolerances": {"fp32": TOLERANCES, "bf16": BF16_TOLERANCES},
            "complete": False,
            "results": self._results,
        }
        self._write()

    def add(self, result: Result) -> None:
        """One more result."""
        self._results.append(result.as_json())
        self._write()

    def finish(self) -> None:
        """All results are there."""
        self._content["complete"] = True
        self._write()

    def _write(self) -> None:
        partial = self._path.with_name(self._path.name + ".tmp")
        partial.write_text(json.dumps(self._content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._path)
