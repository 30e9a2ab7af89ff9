"""The keys of the samples of every step, written by each replica beside the others, and read together.

A run that is continued appends: steps that it repeats stand in the files twice and must agree. `read_sample_log` merges the
files of all replicas, also of a run that changed their number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from moss_train.feed.digest import pixels_digest, rows_digest


class SampleLog:
    """`samples_00000.jsonl` of one replica: a line for each of its micro-batches, with keys and checksums.

    Args:
        run_dir: where the file lies.
        replica: number of this replica.
        replicas: how many there are.
    """

    def __init__(self, run_dir: Path, replica: int, replicas: int) -> None:
        self._path = run_dir / f"samples_{replica:05d}.jsonl"
        self._replica, self._replicas = replica, replicas
        self._file: TextIO | None = None

    def write(self, step: int, batches: Sequence[PackedMicroBatch]) -> None:
        """Append the micro-batches of a step, before it is trained on.

        Args:
            step: the update that uses them, from 1.
            batches: of this replica; number k is number k * replicas + replica of the global batch.
        """
        if self._file is None:
            self._file = self._open()
        for k, batch in enumerate(batches):
            number = k * self._replicas + self._replica
            keys = [key for key in batch.sample_keys if key]
            line = {"step": step, "micro_batch": number, "keys": keys}
            line |= {"rows": rows_digest(batch), "pixels": pixels_digest(batch)}
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        file = self._path.open("a", encoding="utf-8")
        if size := file.tell():
            with self._path.open("rb") as written:
                written.seek(size - 1)
                if written.read() != b"\n":  # a killed run's last line
                    file.write("\n")
        return file


def read_sample_log(run_dir: Path | str) -> dict[int, list[list[str]]]:
    """Keys of each micro-batch of each step, in the order of the global batch.

    A step that was ended while it was read, and never repeated, is left out.

    Raises:
        InputError: no such files, or a repeated step that had other samples.
    """
    paths = sorted(Path(run_dir).glob("samples_*.jsonl"))
    if not paths:
        raise InputError(f"{run_dir} has no sample log (samples_*.jsonl); train with data.log_samples=true")
    found: dict[int, dict[int, list[str]]] = {}
    for path in paths:
        for line in _lines(path):
            step, number, keys = line["step"], line["micro_batch"], line["keys"]
            known = found.setdefault(step, {}).setdefault(number, keys)
            if known != keys:
                raise InputError(
                    f"{path} has {', '.join(keys) or 'nothing'} in micro-batch {number} of step {step}, where the run had "
                    f"{', '.join(known) or 'nothing'} before: the order of the data changed when it was continued"
                )
    size = max(len(step) for step in found.values()) if found else 0
    return {step: [found[step][i] for i in range(size)] for step in sorted(found) if len(found[step]) == size}


def read_logged_step(run_dir: Path | str, step: int) -> dict[int, dict[str, Any]]:
    """The newest line of each micro-batch of a step, by its number in the global batch; empty without a log of it."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(Path(run_dir).glob("samples_*.jsonl")):
        found |= {line["micro_batch"]: line for line in _lines(path) if line["step"] == step}
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; one that was cut off by the end of a process is skipped."""
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and values.keys() >= {"step", "micro_batch", "keys"}:
            yield values
