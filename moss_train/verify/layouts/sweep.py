"""Starts the ranks of the check, number by number, and collects what they find. A crash costs its layout only."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from model.errors import InputError
from moss_train.parallel.spawn import run_on_ranks
from moss_train.verify.layouts.findings import Findings, TrialResult
from moss_train.verify.layouts.names import UPDATES, NamedLayout, trials_of

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
        presets: freeze presets, or `dense_labels`, of layouts that name none themselves.
        device: cpu | cuda, for all ranks.
        bf16: also measure the drift in bf16.
        progress: called with every result at once, bf16 on one rank included.
        modules: one of `names.MODULES`, on one rank and in every layout.
        updates: of each trial; at least 2, else no weights that an update left are trained.
        seconds: layouts that would begin later than this after the start are left out; None for no limit.
    """

    def __init__(
        self,
        presets: Sequence[str],
        device: str,
        bf16: bool,
        progress: Progress,
        modules: str = "torch",
        updates: int = UPDATES,
        seconds: float | None = None,
    ) -> None:
        self._request: dict[str, Any] = {"presets": list(presets), "device": device, "bf16": bf16, "modules": modules}
        self._request |= {"updates": updates, "end": None if seconds is None else time.time() + seconds}
        self._presets, self._bf16, self._modules = presets, bf16, modules
        self._progress = progress

    def run(self, layouts: Sequence[NamedLayout]) -> list[TrialResult]:
        """Results of all trials in all layouts, bf16 on one rank first."""
        results: list[TrialResult] = []
        with tempfile.TemporaryDirectory(prefix="moss_layouts_") as scratch:
            self._request["reference"] = str(Path(scratch) / "one.pt")
            self._start(Path(scratch), 1, layouts, self._keeper(results), write_reference=True)
            for ranks, group in groupby(layouts, key=lambda layout: layout.ranks):
                results += self._survive(Path(scratch), ranks, list(group))
        return results

    def _keeper(self, into: list[TrialResult]) -> Callable[[Any], None]:
        def keep(content: Any) -> None:
            into.append(_result(content))
            self._progress(into[-1])

        return keep

    def _survive(self, scratch: Path, ranks: int, layouts: list[NamedLayout]) -> Iterator[TrialResult]:
        """Runs the layouts; one that ends its processes is reported, and the others go on in new ones."""
        while layouts:
            results: list[TrialResult] = []
            try:
                self._start(scratch, ranks, layouts, self._keeper(results))
                layouts = []
            except RuntimeError as error:
                culprit = self._unfinished(layouts, len(results))
                failed = TrialResult(layouts[culprit].name, ranks, "?", "?", "?", error=str(error)).judge()
                self._progress(failed)
                results.append(failed)
                layouts = layouts[culprit + 1 :]
            yield from results

    def _unfinished(self, layouts: Sequence[NamedLayout], results: int) -> int:
        """The first layout without all its results, which come in order; the last where only the processes' end failed."""
        for index, layout in enumerate(layouts):
            results -= len(trials_of(layout, self._presets, self._bf16, self._modules))
            if results < 0:
                return index
        return len(layouts) - 1

    def _start(
        self,
        scratch: Path,
        ranks: int,
        layouts: Sequence[NamedLayout],
        keep: Callable[[Any], None],
        write_reference: bool = False,
    ) -> None:
        request = scratch / f"request_{ranks}.json"
        content = self._request | {"layouts": [layout.text for layout in layouts], "write_reference": write_reference}
        request.write_text(json.dumps(content), encoding="utf-8")
        run_on_ranks(MODULE, ranks, [request], device=self._request["device"], on_progress=keep)
