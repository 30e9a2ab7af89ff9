"""Whether what was read again is what the run had: its sample log and its metrics say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from moss_train.feed.digest import pixels_digest, rows_digest
from moss_train.feed.sample_log import read_logged_step
from moss_train.statistics import real_rows


@dataclass
class Checks:
    """What was compared, and what a reader should know."""

    equal: list[str] = field(default_factory=list)
    """What was found equal to the run."""
    notes: list[str] = field(default_factory=list)


def compare_with_log(checks: Checks, run_dir: Path, step: int, batches: Mapping[int, PackedMicroBatch]) -> None:
    """Keys, rows and pixels against the run's sample log.

    Raises:
        InputError: the run had other samples or other rows.
    """
    logged = read_logged_step(run_dir, step)
    if not logged:
        checks.notes.append("the run has no sample log of this step (data.log_samples), so keys and rows are not compared")
        return
    pixels = True
    for number, batch in batches.items():
        line = logged.get(number)
        if line is None:
            raise InputError(
                f"the sample log of {run_dir} has no micro-batch {number} in step {step}; its size changed in the run"
            )
        keys = [key for key in batch.sample_keys if key]
        if keys != line["keys"]:
            raise InputError(
                f"micro-batch {number} of step {step} holds {', '.join(keys)} where the run had {', '.join(line['keys'])}: "
                "the data or the code that reads them changed since"
            )
        if line.get("rows", rows := rows_digest(batch)) != rows:
            raise InputError(
                f"micro-batch {number} of step {step} holds the run's samples with other rows (checksum {rows}, the run had "
                f"{line['rows']}): the samples or the code that lays them out changed since"
            )
        pixels &= line.get("pixels", seen := pixels_digest(batch)) == seen
    checks.equal.append("sample keys and all rows, by the run's sample log")
    if pixels:
        checks.equal.append("pixels, by the run's sample log")
    else:
        checks.notes.append("pixels differ from the run's: another version or choice of decoder (data.decode) is used here")


def compare_with_record(checks: Checks, record: Mapping[str, Any] | None, batches: Mapping[int, PackedMicroBatch]) -> None:
    """Counts of a whole global batch against the step's metrics.

    Raises:
        InputError: the run counted differently.
    """
    if record is None:
        why = "between lines (train.log_every), not reached, or it ended the run"
        checks.notes.append(f"the run's metrics.jsonl has no line of this step: {why}")
        return
    if not batches:
        return
    found = {
        "targets": sum(batch.num_targets for batch in batches.values()),
        "tokens": sum(real_rows(batch) for batch in batches.values()),
        "frames": sum(batch.num_frames for batch in batches.values()),
    }
    for name, value in found.items():
        if name in record and record[name] != value and not (name == "targets" and _dense(batches)):
            raise InputError(
                f"this step's global batch has {value} {name} where metrics.jsonl of the run says {record[name]}: "
                "the data, or train.global_batch_size during the run, changed"
            )
    checks.equal.append("targets, tokens and frames, by the run's metrics.jsonl")


def _dense(batches: Mapping[int, PackedMicroBatch]) -> bool:
    """Whether patches are the targets, which are counted otherwise."""
    return any(batch.dense_labels is not None for batch in batches.values())
