"""Differences of a trial in a layout from the same trial on one rank, and whether they are within the tolerances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from moss_train.verify.layouts.findings import Difference, Findings
from moss_train.verify.layouts.trial import Outcome


def relative(ours: float, theirs: float) -> float:
    """|a - b| / |b|; infinite where a value is not a number."""
    difference = abs(ours - theirs) / abs(theirs) if theirs else abs(ours)
    return difference if difference == difference else float("inf")


def _largest(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    pairs = enumerate(zip(ours, theirs, strict=True), 1)
    return max(Difference(relative(a, b), f"update {i}") for i, (a, b) in pairs)


def distance(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> Difference:
    """Largest |ours - theirs| / |theirs| in norm over the tensors, and its name; both zero counts as equal.

    Infinite where one side has a tensor that the other lacks.
    """
    worst = max((Difference(float("inf"), name) for name in ours.keys() ^ theirs.keys()), default=Difference(0.0, ""))
    if worst.where:
        return worst
    for name, reference in theirs.items():
        norm, difference = reference.double().norm().item(), (ours[name].double() - reference.double()).norm().item()
        value = difference / norm if norm > 0 else difference
        worst = max(worst, Difference(value if value == value else float("inf"), name))
    return worst


def _log_values(outcome: Outcome) -> dict[str, float]:
    """Everything that the statistics say of the global batch, flat."""
    flat: dict[str, float] = {}
    for name, value in outcome.statistics.items():
        if isinstance(value, dict):
            flat.update((f"{name}.{key}", float(inner)) for key, inner in value.items())
        elif name in ("loss", "targets", "tokens", "frames", "accuracy") and value is not None:
            flat[name] = float(value)
    return flat


def compare(got: Outcome, want: Outcome) -> Findings:
    """The differences between two outcomes that both hold whole tensors."""
    assert got.weights is not None and want.weights is not None
    ours, theirs = _log_values(got), _log_values(want)
    found = Findings(
        loss=_largest(got.loss, want.loss),
        norm=_largest(got.norm, want.norm),
        weights=distance(got.weights, want.weights),
        log=max(Difference(relative(ours.get(n, float("nan")), theirs.get(n, float("nan"))), n) for n in ours | theirs),
        planned=got.planned,
        again=got.again,
        towers=[[len(frames) for frames in ranks] for ranks in got.encoded],
        distinct=[len({frame for frames in ranks for frame in frames}) for ranks in got.encoded],
        expected_frames=[len({frame for frames in ranks for frame in frames}) for ranks in want.encoded],
    )
    if want.gradients is not None and got.gradients is not None:
        found.gradients = distance(got.gradients, want.gradients)
        found.trained = sum(bool(g.abs().sum() > 0) for g in want.gradients.values())
        ours_all, theirs_all = (torch.cat([t.double().flatten() for t in g.values()]) for g in (got.gradients, want.gradients))
        found.all_gradients = float((ours_all - theirs_all).norm() / theirs_all.norm())
    return found
