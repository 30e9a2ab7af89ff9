"""Starts the ranks of the check, number by number, and collects what they find. A crash costs its layout only."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from model.errors import InputError
from moss_train.parallel.spawn import run_on_ranks
from moss_train.verify.layouts.findings import Findings, TrialResult
from moss_train.verify.layouts.names import NamedLayout, trials_of

MODULE = "moss_train.verify.layouts.ranks"
Progress = Callable[[TrialResult], None]


def choose_device(name: str, ranks: int) -> str:
    """`auto` takes GPUs if there are enough for the largest layout, so that all trials run on one kind of device.

    Raises:
        InputError: cuda asked for with too few GPUs.
    """
    available = torch.cuda.device_count()
    if name == "cuda" and available < ranks:
        raise InputError(f"--device cuda with {available} GPUs, but the largest layout has {ranks} ranks; choose smaller layouts")
    return "cuda" if name != "cpu" and available >= ranks > 0 else "cpu"


def _result(content: dict[str, Any]) -> TrialResult:
    found = content.pop("findings")
    return TrialResult(**content, findings=None if found is None else Findings.of(found))


class Sweep:
    """The check of a list of layouts.

    Args:
        presets: freeze presets, or `dense_labels`.
        device: cpu | cuda, for all ranks.
        bf16: also measure the drift in bf16.
        progress: called with every result.
    """

    def __init__(self, presets: Sequence[str], device: str, bf16: bool, progress: Progress) -> None:
        self._request: dict[str, Any] = {"presets": list(presets), "device": device, "bf16": bf16}
        self._progress = progress
        self._trials = len(trials_of(presets, bf16))

    def run(self, layouts: Sequence[NamedLayout]) -> list[TrialResult]:
        """Results of all trials in all layouts."""
        results: list[TrialResult] = []
        with tempfile.TemporaryDirectory(prefix="moss_layouts_") as scratch:
            self._request["reference"] = str(Path(scratch) / "one.pt")
            self._start(Path(scratch), 1, ["one"], lambda content: results.append(_result(content)))
            for ranks, group in groupby(layouts, key=lambda layout: layout.ranks):
                results += self._survive(Path(scratch), ranks, [layout.name for layout in group])
        return results

    def _survive(self, scratch: Path, ranks: int, names: list[str]) -> Iterator[TrialResult]:
        """Runs the layouts; one that ends its processes is reported, and the others go on in new ones."""
        while names:
            results: list[TrialResult] = []

            def keep(content: Any, into: list[TrialResult] = results) -> None:
                into.append(_result(content))
                self._progress(into[-1])

            try:
                self._start(scratch, ranks, names, keep)
                names = []
            except RuntimeError as error:
                culprit = len(results) // self._trials  # every layout gives so many results, in order
                failed = TrialResult(names[culprit], ranks, "?", "?", "?", error=str(error)).judge()
                self._progress(failed)
                results.append(failed)
                names = names[culprit + 1 :]
            yield from results

    def _start(self, scratch: Path, ranks: int, names: list[str], keep: Callable[[Any], None]) -> None:
        request = scratch / f"request_{ranks}.json"
        request.write_text(json.dumps(self._request | {"layouts": names}), encoding="utf-8")
        run_on_ranks(MODULE, ranks, [request], device=self._request["device"], on_progress=keep)
