"""A run goes on from its checkpoint bit for bit in its own layout, and within rounding in any other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.verify.layouts.compare import relative
from moss_train.verify.layouts.names import parse_layout
from moss_train.verify.ranks.agreed import gather_reasons
from moss_train.verify.ranks.findings import CaseResult, bounds_of
from moss_train.verify.ranks.names import SAVED_AT, UPDATES, Kind
from moss_train.verify.ranks.training import Training, clear, differing, equal_weights

Tell = Callable[[CaseResult], None]
_LATER = range(SAVED_AT, UPDATES)


@dataclass
class Saved:
    """A run that was saved in the middle and went on."""

    layout: str
    checkpoint: Path
    weights: dict[str, torch.Tensor] | None
    """At the moment of the checkpoint, by published name, on the first rank."""
    later: list[tuple[float, float]]
    """Loss and gradient norm of the updates behind it."""

    def write(self, file: Path) -> None:
        """Keep it for other processes; the first rank does."""
        if dist.get_rank() == 0:
            content: dict[str, Any] = vars(self) | {"checkpoint": str(self.checkpoint)}
            torch.save(content, file)

    @staticmethod
    def read(file: Path) -> Saved:
        """What `write` kept."""
        content = torch.load(file, weights_only=True)
        return Saved(**content | {"checkpoint": Path(content["checkpoint"])})


def resume(kind: Kind, name: str, layout: ParallelLayout, folder: Path, tell: Tell) -> Saved:
    """Trains, saves in the middle and goes on; then another model continues the checkpoint and must do the same, bit for bit."""
    begin, result = time.monotonic(), CaseResult("resume", name, layout.world_size, kind.modules, kind.dtype)
    whole = Training(kind, layout)
    result.made_of = whole.made_of
    for number in range(SAVED_AT):
        whole.update(number)
    checkpoint = whole.save(folder / name, SAVED_AT)
    saved = Saved(name, checkpoint, whole.weights(), [])
    at_save = whole.state()
    saved.later = [whole.update(number) for number in _LATER]
    at_end = whole.state()

    again = Training(kind, layout)
    step = again.load(checkpoint)
    loaded, total = differing(again.state(), at_save)
    later = [again.update(number) for number in _LATER]
    ended, _ = differing(again.state(), at_end)
    trained, _ = differing(at_save, at_end)
    result.figures = {"tensors": total, "differ_when_loaded": loaded, "differ_at_the_end": ended, "trained": trained}
    result.figures |= differences(later, saved.later)
    result.expect(step == SAVED_AT, f"the checkpoint says step {step}, not {SAVED_AT}")
    result.expect(loaded == 0, f"{loaded} of {total} tensors differ when they are loaded")
    result.expect(ended == 0, f"{ended} of {total} tensors differ after {len(_LATER)} more updates")
    result.expect(later == saved.later, f"losses and norms {later}, not {saved.later}")
    # Moments of embeddings that no token met stay 0; in 16 bits a weight may stay where its fp32 copy moves.
    least = 0.9 * total if kind.dtype == "fp32" else 1
    result.expect(trained >= least, f"only {trained} of {total} tensors changed in the updates behind the checkpoint")
    result.expect(all(0 < value < math.inf for pair in saved.later for value in pair), f"losses and norms {saved.later}")
    gather_reasons(result)
    result.seconds = time.monotonic() - begin
    tell(result)
    return saved


def reshard(kind: Kind, name: str, layout: ParallelLayout, before: Saved, tell: Tell) -> None:
    """This layout continues what another one saved: equal weights, then equal losses and norms within rounding."""
    begin = time.monotonic()
    result = CaseResult("reshard", f"{before.layout} > {name}", layout.world_size, kind.modules, kind.dtype)
    training = Training(kind, layout)
    result.made_of = training.made_of
    step = training.load(before.checkpoint)
    result.expect(step == SAVED_AT, f"the checkpoint says step {step}, not {SAVED_AT}")
    weights = training.weights()
    if layout.rank == 0:
        ours, theirs = weights or {}, before.weights or {}
        bad = equal_weights(ours, theirs)
        result.figures |= {"tensors": len(ours), "differ_when_loaded": bad}
        result.expect(len(ours) > 0, "the first rank was given no weights to compare")
        result.expect(bad == 0, f"{bad} of {len(theirs)} weights differ when they are loaded")
    found = differences([training.update(number) for number in _LATER], before.later)
    result.figures |= found
    for what, bound in bounds_of(kind.dtype).items():
        result.expect(found[what] <= bound, f"{what} {found[what]:.1e} > {bound:g}")
    gather_reasons(result)
    result.seconds = time.monotonic() - begin
    tell(result)


def differences(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> dict[str, float]:
    """Largest relative differences of losses and norms."""
    pairs = list(zip(ours, theirs, strict=True))
    return {name: max(relative(a[i], b[i]) for a, b in pairs) for i, name in enumerate(("loss", "norm"))}


def chain(
    kind: Kind,
    names: list[str],
    device: torch.device,
    folder: Path,
    tell: Tell,
    keep: Callable[[Saved], None],
    up: Callable[[], bool],
) -> None:
    """Each layout resumes itself and continues the one before.

    Args:
        keep: called with every run that was saved.
        up: whether there is no time for another layout, the same on all ranks.
    """
    before: Saved | None = None
    for name in names:
        if up():
            tell(CaseResult("resume", name, dist.get_world_size(), kind.modules, kind.dtype, skipped="no time was left"))
            continue
        layout = start_layout(parse_layout(name).sizes, device, seed=1)
        if before is not None:
            reshard(kind, name, layout, before, tell)
        before = resume(kind, name, layout, folder, tell)
        keep(before)
        stop_layout()
        clear()
