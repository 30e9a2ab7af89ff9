"""What a run that was killed has in common with one that was left alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moss_train.feed.sample_log import read_sample_log

_COMPARED = re.compile(
    r"(eval_)?(loss|accuracy)|loss_\w+|dataset_\w+|grad_norm\w*|(vision_)?learning_rates?|targets|tokens|frames|padding|skipped|eval_\w+"
)
"""Values that no clock and no machine decides."""
_TIMED = re.compile(r"seconds|per_second|memory|mfu|stall")

Row = dict[str, Any]
Key = tuple[int, str]
"""Step, and whether it is an update or an evaluation."""


def comparable(row: Mapping[str, Any]) -> Row:
    """The values of a line of metrics that two runs must share."""
    return {name: value for name, value in row.items() if _COMPARED.fullmatch(name) and not _TIMED.search(name)}


def by_key(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Row]:
    """Lines by step and kind; of lines of one kind for a step all values together."""
    found: dict[Key, Row] = {}
    for row in rows:
        kind = "update" if "loss" in row else "evaluation"
        found.setdefault((int(row["step"]), kind), {}).update(comparable(row))
    return found


def first_difference(rows: Sequence[Row], reference: Sequence[Row], from_step: int, to_step: int) -> str | None:
    """The first value, in order of steps, in which a run's metrics are not bit for bit those of the reference.

    Args:
        from_step, to_step: inclusive; every line of the reference there must be there, once.
    """
    ours, theirs = by_key(rows), by_key(reference)
    keys = sorted(key for key in ours.keys() | theirs.keys() if from_step <= key[0] <= to_step)
    for key in keys:
        where = f"step {key[0]}, {key[1]}"
        if key not in ours or key not in theirs:
            return f"{where}: {'missing' if key not in ours else 'not in the reference'}"
        for name in sorted(ours[key].keys() | theirs[key].keys()):
            one, two = ours[key].get(name), theirs[key].get(name)
            if one != two:
                return f"{where}, {name}: {one!r} instead of {two!r}"
    twice = [(row["step"], "loss" in row) for row in rows if "loss" in row]
    doubled = sorted({step for step in twice if twice.count(step) > 1})
    return f"step {doubled[0][0]} stands twice in the metrics" if doubled else None


def lines_differ(rows: Sequence[Row], reference: Sequence[Row]) -> str | None:
    """The first update or evaluation that one of two runs has a line of and the other has not; of any layouts."""
    ours, theirs = by_key(rows), by_key(reference)
    for key in sorted(ours.keys() ^ theirs.keys()):
        return f"step {key[0]}, {key[1]}: {'missing' if key not in ours else 'not in the reference'}"
    return None


def relative_losses(rows: Sequence[Row], reference: Sequence[Row], from_step: int, name: str = "loss") -> dict[int, float]:
    """|loss - reference| / reference by step, from a step on.

    Args:
        name: loss | eval_loss
    """
    ours, theirs = (
        {int(row["step"]): float(row[name]) for row in of if name in row and row["step"] >= from_step} for of in (rows, reference)
    )
    return {step: abs(loss - theirs[step]) / abs(theirs[step]) for step, loss in sorted(ours.items())}


def samples_differ(run_dir: Path, reference: Path) -> str | None:
    """The first step whose samples are not the reference's; every step must be logged."""
    ours, theirs = read_sample_log(run_dir), read_sample_log(reference)
    for step, keys in theirs.items():
        if ours.get(step) != keys:
            return f"step {step}: {ours.get(step)} instead of {keys}"
    return None


def state_files(checkpoint: Path) -> dict[str, str]:
    """Digests of all weights and optimizer states of a checkpoint, as its ranks wrote them."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(checkpoint.glob("rank_*.safetensors"))}
