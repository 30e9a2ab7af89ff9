"""Reads what runs and evaluations left on disk into one plain structure, the content of `report.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import InputError

JsonObject = dict[str, Any]


@dataclass
class StageCurve:
    """One training run: training loss by step, held-out loss by step."""

    name: str
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    eval_steps: list[int] = field(default_factory=list)
    eval_losses: list[float] = field(default_factory=list)

    def first_last(self) -> JsonObject:
        """First and last loss: held out where the run measured it, else of the training batches."""
        held_out = len(self.eval_losses) > 1
        values = self.eval_losses if held_out else self.losses
        return {"first": values[0], "last": values[-1], "held_out": held_out, "steps": self.steps[-1]}


def read_json_lines(path: Path) -> list[JsonObject]:
    """All objects of a JSON-lines file.

    Raises:
        InputError: the file is missing, or a line is no JSON; the line is named.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the folder that the command before wrote")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path} line {number} is not JSON ({error.msg}); the file is damaged, run the stage again"
            ) from None
    return rows


def read_curve(name: str, run_dir: Path) -> StageCurve:
    """The losses of a run folder's `metrics.jsonl`."""
    curve = StageCurve(name)
    for row in read_json_lines(run_dir / "metrics.jsonl"):
        if "loss" in row:
            curve.steps.append(int(row["step"]))
            curve.losses.append(float(row["loss"]))
        if "eval_loss" in row:
            curve.eval_steps.append(int(row["step"]))
            curve.eval_losses.append(float(row["eval_loss"]))
    if not curve.losses:
        raise InputError(f"{run_dir / 'metrics.jsonl'} holds no training loss; the run of stage {name} did not finish a step")
    return curve


def read_scores(name: str, folder: Path) -> JsonObject:
    """`scores.json` of an evaluation folder."""
    path = folder / "scores.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; run `moss eval ... --out {folder}` for {name} first")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error}); run `moss eval ... --out {folder}` again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold an object; run `moss eval ... --out {folder}` again")
    return content


def summary(curves: list[StageCurve], scores: dict[str, JsonObject]) -> JsonObject:
    """The content of `report.json`: scores by evaluated model, and `loss.<stage>.first/last`."""
    return {**scores, "loss": {curve.name: curve.first_last() for curve in curves}}
