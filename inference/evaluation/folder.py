"""The files of an evaluation: `traces.jsonl`, `items.jsonl`, `scores.json`, `run.json`."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from inference.evaluation.items import save_items
from inference.evaluation.judge.judge import Judge
from inference.evaluation.run_record import RunRecord, fingerprints, save_record
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.summary import score
from inference.evaluation.scoring import pair, score_items, suite_metrics
from inference.evaluation.storage import save_traces, write_lines
from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where traces come from, as far as it is known."""

    command: Sequence[str] = ()
    checkpoint: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()
    """Scenario files."""
    seconds: float | None = None


def write_folder(
    folder: Path, traces: list[Trace], scenarios: list[Scenario], provenance: Provenance, judge: Judge | None
) -> dict[str, Any]:
    """Score traces and write all files of an evaluation.

    Traces are written first: whatever a judge's endpoint does, they need not be made again.

    Returns:
        The scores: those of `scorers.summary.score`, with the metrics of each suite under `suites`.
    """
    pairs = pair(traces, scenarios)
    save_traces(folder / "traces.jsonl", traces)
    items = score_items(pairs, judge)
    save_items(folder / "items.jsonl", items)
    scores = score([trace for trace in traces if trace.mode in ("push", "offline")], scenarios)
    scores["suites"] = suite_metrics(items)
    errors = {trace.scenario_id: trace.error for trace in traces if trace.error}
    if errors:
        scores["errors"] = errors
    write_lines(folder / "scores.json", [json.dumps(scores, indent=1)])
    save_record(folder, _record(provenance, scenarios, judge))
    return scores


def _record(provenance: Provenance, scenarios: Sequence[Scenario], judge: Judge | None) -> RunRecord:
    return RunRecord(
        command=list(provenance.command),
        checkpoint=provenance.checkpoint,
        settings=json.loads(json.dumps(provenance.settings, default=str)),
        scenario_files={str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in provenance.files},
        fingerprints=fingerprints(scenarios),
        manifests=[manifest for path in provenance.files for manifest in _manifest(path)],
        judge=judge.name if judge is not None else "",
        versions=_versions(),
        seconds=provenance.seconds,
        written=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def manifest_path(scenarios: Path) -> Path:
    """Where the manifest of an imported scenario file lies."""
    return scenarios.with_name(f"{scenarios.name}.manifest.json")


def _manifest(scenarios: Path) -> list[dict[str, Any]]:
    path = manifest_path(scenarios)
    if not path.is_file():
        return []
    try:
        return [json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); import the benchmark again") from error


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("moss-train", "torch", "transformers", "tokenizers", "av"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
