"""What a run folder tells about its run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.monitors.names import flatten

JsonObject = dict[str, Any]


@dataclass
class RunData:
    """A run folder, read."""

    path: Path
    records: list[JsonObject]
    """Lines of metrics.jsonl."""
    events: list[JsonObject] = field(default_factory=list)
    config: str = ""
    versions: JsonObject = field(default_factory=dict)
    left_out: list[tuple[str, str, int]] = field(default_factory=list)
    """Dataset, reason, samples of the quarantine ledger."""
    stragglers: list[JsonObject] = field(default_factory=list)
    anomalies: list[str] = field(default_factory=list)
    """Names of the folders that guards wrote."""
    curves: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    """Steps and values by W&B name."""

    @property
    def steps(self) -> list[JsonObject]:
        """Records of updates."""
        return [record for record in self.records if "loss" in record]

    @property
    def evaluations(self) -> list[JsonObject]:
        return [record for record in self.records if "eval_loss" in record]

    @property
    def restarts(self) -> list[int]:
        """Steps from which the run went on in a new process."""
        return [event["step"] for event in self.events if event.get("event") == "started" and event["step"] > 0]


def read_run(folder: Path) -> RunData:
    """Everything that the report shows; what a run does not have is empty.

    Raises:
        InputError: there are no metrics.
    """
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise InputError(f"{metrics} does not exist; give the folder of a run (run_dir) that has done a step")
    data = RunData(folder, _lines(metrics))
    if not data.steps:
        raise InputError(f"{metrics} holds no training loss; the run has not done a step yet")
    data.events = [event for event in _lines(folder / "events.jsonl") if isinstance(event.get("step"), int)]
    data.stragglers = _lines(folder / "stragglers.jsonl")
    if (folder / "config.yaml").is_file():
        data.config = (folder / "config.yaml").read_text(encoding="utf-8")
    if (folder / "versions.json").is_file():
        data.versions = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
    reasons: Counter[tuple[str, str]] = Counter()
    for entry in _lines(folder / "quarantine.jsonl"):
        reasons[str(entry.get("dataset", "?")), str(entry.get("kind", entry.get("reason", "?")))] += 1
    data.left_out = [(dataset, reason, count) for (dataset, reason), count in sorted(reasons.items())]
    if (folder / "anomalies").is_dir():
        data.anomalies = sorted(path.name for path in (folder / "anomalies").iterdir())
    for record in data.records:
        for name, value in flatten(record).items():
            steps, values = data.curves.setdefault(name, ([], []))
            steps.append(record["step"])
            values.append(value)
    data.curves.pop("step", None)
    return data


def _lines(path: Path) -> list[JsonObject]:
    """Objects of a JSON-lines file; a line that a kill cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
