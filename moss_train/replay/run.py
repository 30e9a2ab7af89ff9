"""A run folder read for one of its steps."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.loader.again import DataAgain
from data_pipeline.loader.ledger_lines import parse_lines
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.compose import load_config
from moss_train.config.schema import RunConfig
from moss_train.replay.check import Checks, compare_with_log, compare_with_record
from moss_train.replay.place import find_place
from moss_train.run_folder import RunFolder

Progress = Callable[[int, int], None]


@dataclass
class ReplayedStep:
    """The global batch of a step, or some micro-batches of it."""

    step: int
    folder: RunFolder
    """Of the run."""
    config: RunConfig
    tokenizer: Tokenizer
    batches: dict[int, PackedMicroBatch]
    """By number in the global batch."""
    size: int
    """Micro-batches of the global batch."""
    readers: dict[int, int]
    """Number of the reader that each micro-batch comes from."""
    source: str
    """In words, where the micro-batches come from."""
    record: dict[str, Any] | None
    """The step's line of metrics.jsonl; None where there is none."""
    checks: Checks = field(default_factory=Checks)

    @property
    def whole(self) -> bool:
        return len(self.batches) == self.size

    @property
    def model_config(self) -> VideoMllamaConfig:
        return VideoMllamaConfig.from_dict(self.config.model)


def open_run(run_dir: Path, overrides: Sequence[str]) -> tuple[RunFolder, RunConfig, Tokenizer]:
    """What a run folder says about itself.

    Args:
        overrides: `key=value`, for data that have moved.

    Raises:
        InputError: it is no run folder.
    """
    folder = RunFolder(run_dir)
    if not folder.config.is_file():
        raise InputError(f"{run_dir} is no run folder: it has no config.yaml; give the run_dir of a training run")
    config = load_config(folder.config, overrides)
    return folder, config, Tokenizer.from_file(folder.tokenizer)


def replay_step(
    run_dir: Path, step: int, overrides: Sequence[str] = (), only: Sequence[int] = (), on_passed: Progress | None = None
) -> ReplayedStep:
    """Read the micro-batches of a step again.

    Args:
        step: the update that used them, from 1; one that the run has not come to yet may be looked at too.
        overrides: changes of the run's config that do not change its data, such as `data.root=…`.
        only: numbers in the global batch; empty takes all.
        on_passed: called with the micro-batches that were passed over so far, and how many there are to pass over.

    Raises:
        InputError: no such step or micro-batch, data that are not there or are not the run's, or a damaged run folder.
    """
    folder, config, tokenizer = open_run(run_dir, overrides)
    size = config.train.global_batch_size
    _check_numbers(config, step, only)
    place = find_place(folder, step, size)
    wanted = sorted(set(only)) or list(range(size))
    left_out = parse_lines(folder.quarantine.read_bytes()) if folder.quarantine.is_file() else []
    of = config.data.global_data_workers
    with tempfile.TemporaryDirectory(prefix="moss-replay-") as scratch:
        again = DataAgain(
            config.data, config.stage, VideoMllamaConfig.from_dict(config.model), tokenizer,
            left_out=left_out, ledger=Path(scratch) / "quarantine.jsonl", state=place.state,
        )  # fmt: skip
        report = _counted(on_passed, (place.first - again.begun_at) * min(of, len(wanted)) // of)
        batches = {number: again.take(place.first + number, report) for number in wanted}
    start = "the beginning of the data" if place.checkpoint is None else f"the place in the data of {place.checkpoint.name}"
    record = next((row for row in read_records(folder) if row.get("step") == step and "loss" in row), None)
    found = ReplayedStep(
        step=step, folder=folder, config=config, tokenizer=tokenizer, batches=batches, size=size,
        readers={number: (place.first + number) % of for number in wanted},
        source=f"read again from {start}", record=record,
    )  # fmt: skip
    found.checks.notes += place.passed_by
    compare_with_log(found.checks, folder.path, step, batches)
    compare_with_record(found.checks, record, batches if found.whole else {})
    return found


def read_records(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """Lines of metrics.jsonl, the newest first; one that was cut is left out."""
    if not folder.metrics.is_file():
        return
    for line in reversed(folder.metrics.read_bytes().splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _check_numbers(config: RunConfig, step: int, only: Sequence[int]) -> None:
    if step < 1:
        raise InputError(f"step={step}: steps are counted from 1")
    if step > config.train.steps:
        raise InputError(f"step={step}: the run has {config.train.steps} steps (train.steps); choose one of them")
    size = config.train.global_batch_size
    for number in only:
        if not 0 <= number < size:
            raise InputError(f"--micro-batch {number}: a global batch of this run has the micro-batches 0 to {size - 1}")


def _counted(on_passed: Progress | None, total: int) -> Callable[[], None] | None:
    if on_passed is None:
        return None
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        on_passed(done, max(done, total))

    return report
