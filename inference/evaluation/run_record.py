"""`run.json`: what produced an evaluation folder, so that reports can repeat it and comparisons know what is comparable."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from inference.evaluation.schema import Scenario
from inference.evaluation.storage import scenario_as_dict, write_lines
from model.errors import InputError

RUN_FILE = "run.json"


@dataclass(kw_only=True)
class RunRecord:
    """One evaluation. Everything may be empty: whoever writes the file tells what it knows."""

    command: list[str] = field(default_factory=list)
    """Words of the command line, as typed."""
    checkpoint: dict[str, Any] = field(default_factory=dict)
    """`path`, and `sha256` of its weights where it was computed; `baseline` where no model ran."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the run: pace, sampling, device, precision, latency profile, …"""
    scenario_files: dict[str, str] = field(default_factory=dict)
    """Paths as given, with the SHA-256 of each file."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """`fingerprint` of each scenario by its id."""
    manifests: list[dict[str, Any]] = field(default_factory=list)
    """Of the benchmarks that the scenarios were imported from."""
    judge: str = ""
    """Name of the judge; empty: none was asked."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of packages, Python and this software."""
    seconds: float | None = None
    """That the run took."""
    written: str = ""
    """When, in UTC, as ISO 8601."""


def fingerprint(scenario: Scenario) -> str:
    """SHA-256 over all that a scenario asks and holds true; of its video or frames the names count, not the folder."""
    values = scenario_as_dict(scenario)
    if scenario.video:
        values["video"] = PurePath(scenario.video).name
    if scenario.frames:
        values["frames"] = [PurePath(name).name for name in scenario.frames]
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def fingerprints(scenarios: Iterable[Scenario]) -> dict[str, str]:
    """By id."""
    return {scenario.id: fingerprint(scenario) for scenario in scenarios}


def save_record(folder: Path, record: RunRecord) -> None:
    """Write `run.json` into a folder, atomically."""
    write_lines(folder / RUN_FILE, [json.dumps(dataclasses.asdict(record), indent=1, ensure_ascii=False)])


def load_record(folder: Path) -> RunRecord:
    """Read `run.json`; an empty record where there is none. Fields that this version does not know are left out.

    Raises:
        InputError: the file is no such record.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        return RunRecord()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); run the evaluation again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no object; run the evaluation again")
    record = RunRecord()
    for f in dataclasses.fields(RunRecord):
        if f.name not in values:
            continue
        default, value = getattr(record, f.name), values[f.name]
        fits = isinstance(value, (int, float, type(None))) if default is None else isinstance(value, type(default))
        if not fits:
            raise InputError(f"{path} field {f.name} is {value!r}; run the evaluation again")
        setattr(record, f.name, value)
    return record
