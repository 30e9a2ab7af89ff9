"""Kernels that repeat themselves bit for bit compute what the others do, within rounding.

All other checks hold repeatable kernels against each other: one that is wrong everywhere alike, as text that attends to nothing
in every layout, would pass them.
"""

from __future__ import annotations

import time

from moss_train.parallel.layout import ParallelLayout
from moss_train.platform.deterministic import set_deterministic
from moss_train.verify.ranks.findings import CaseResult, bounds_of
from moss_train.verify.ranks.names import SAVED_AT, Kind
from moss_train.verify.ranks.resume import Tell, differences
from moss_train.verify.ranks.training import Training


def kernels(kind: Kind, name: str, layout: ParallelLayout, tell: Tell) -> None:
    """The first updates with `train.deterministic` and without it, from the same weights: losses and norms within the bounds."""
    begin, result = time.monotonic(), CaseResult("kernels", name, layout.world_size, kind.modules, kind.dtype)
    repeatable = _updates(kind, layout, result)
    set_deterministic(False)
    try:
        others = _updates(kind, layout, result)
    finally:
        set_deterministic(True)
    result.figures |= differences(repeatable, others)
    for what, bound in bounds_of(kind.dtype).items():
        found = result.figures[what]
        result.expect(found <= bound, f"with train.deterministic {what} is {found:.1e} > {bound:g} off")
    result.seconds = time.monotonic() - begin
    tell(result)


def _updates(kind: Kind, layout: ParallelLayout, result: CaseResult) -> list[tuple[float, float]]:
    training = Training(kind, layout)
    result.made_of = training.made_of  # at last the kernels that a run takes which need not repeat itself
    return [training.update(number) for number in range(SAVED_AT)]
