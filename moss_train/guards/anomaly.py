"""`RUN/anomalies/step_00000123/`: the global batch of an update that was not applied, and what is known about it.

`summary.json`, and of every replica `replica_00000.safetensors` with the tensors of its packed micro-batches (frames as uint8)
and `replica_00000.json` with their samples' keys. `read_anomaly` gives the micro-batches back.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from moss_train.checkpoint.description import write_atomically
from moss_train.monitors.base import Update
from moss_train.monitors.gradient_norms import GradientNorms

if TYPE_CHECKING:
    from moss_train.setup import Session

FOLDER = "anomalies"
SUMMARY = "summary.json"
_FOLDER_NAME = re.compile(r"step_\d{8,}")
_TENSORS = tuple(f.name for f in dataclasses.fields(PackedMicroBatch) if f.name not in ("sample_keys", "dataset_index"))


class AnomalyWriter:
    """Every rank has it; the rank of a replica that reads writes its replica's part. A full disk ends nothing.

    Args:
        session: the run.
        keep: newest folders that are kept; 0 writes none.
    """

    def __init__(self, session: Session, keep: int) -> None:
        self._session = session
        self._keep = keep

    def __call__(self, update: Update, reason: str, figures: dict[str, Any]) -> str:
        """Write; all ranks call it with the same arguments but for their micro-batches.

        Returns:
            The folder; empty where nothing is written.
        """
        if not self._keep:
            return ""
        norms = self._norms(update)
        layout, run = self._session.layout, self._session.folder.path
        folder = run / FOLDER / f"step_{update.step:08d}"
        try:
            if layout.writes_for_replica:
                folder.mkdir(parents=True, exist_ok=True)
                write_replica(folder, update.data.batches, layout.place.data, layout.data_size)
            if layout.rank == 0:
                summary = _summary(update, reason, figures, self._session) | {"grad_norms": norms}
                write_atomically(folder / SUMMARY, json.dumps(_plain(summary), indent=1))
                _remove_old(run / FOLDER, self._keep)
        except (OSError, SafetensorError) as error:
            why = getattr(error, "strerror", None) or error
            print(
                f"moss: warning: the batch of step {update.step} cannot be written to {folder} ({why})",
                file=sys.stderr,
                flush=True,
            )
        return str(folder)

    def _norms(self, update: Update) -> dict[str, float]:
        """Gradient norm by module: which of them is no number, or jumped. A collective, at a step that all ranks agree on."""
        session = self._session
        if session.config.engine != "megatron":
            return {}
        norms = GradientNorms(session.models, session.optimization, session.layout, every=1)  # type: ignore[arg-type]
        norms.prepared(update)
        found: dict[str, float] = norms.measured(update).get("grad_norms", {})
        return found


def write_replica(folder: Path, batches: Sequence[PackedMicroBatch], replica: int, replicas: int) -> None:
    """Write one replica's micro-batches; number k is number k * replicas + replica of the global batch."""
    tensors: dict[str, torch.Tensor] = {}
    rows = []
    for k, batch in enumerate(batches):
        for name in _TENSORS:
            tensor = getattr(batch, name)
            if tensor is not None:
                tensors[f"{k}.{name}"] = tensor.cpu().clone(memory_format=torch.contiguous_format)
        rows.append(
            {"micro_batch": k * replicas + replica, "sample_keys": batch.sample_keys, "dataset_index": batch.dataset_index}
        )
    name = f"replica_{replica:05d}"
    save_file(tensors, folder / f".{name}.tmp")
    (folder / f".{name}.tmp").replace(folder / f"{name}.safetensors")
    write_atomically(folder / f"{name}.json", json.dumps(rows, ensure_ascii=False, indent=1))


def read_anomaly(folder: Path | str) -> list[PackedMicroBatch]:
    """All micro-batches of a folder, in the order of the global batch.

    Raises:
        InputError: no such folder, or files that are missing or damaged.
    """
    found: dict[int, PackedMicroBatch] = {}
    paths = sorted(Path(folder).glob("replica_*.json"))
    if not paths:
        raise InputError(f"{folder} holds no batch (replica_*.json); give a folder of RUN/{FOLDER}")
    for path in paths:
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            tensors = load_file(path.with_suffix(".safetensors"))
            for k, row in enumerate(rows):
                values: dict[str, Any] = {name: tensors.get(f"{k}.{name}") for name in _TENSORS}
                found[row["micro_batch"]] = PackedMicroBatch(
                    **values, sample_keys=row["sample_keys"], dataset_index=row["dataset_index"]
                )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{path.with_suffix('.safetensors')} cannot be read ({error}); it may have been cut off") from None
    return [found[number] for number in sorted(found)]


def _summary(update: Update, reason: str, figures: dict[str, Any], session: Session) -> dict[str, Any]:
    statistics = update.statistics
    return {
        "step": update.step,
        "reason": reason,
        **figures,
        "class_loss": statistics.class_loss,
        "dataset_loss": statistics.dataset_loss,
        "targets": statistics.targets,
        "frames": statistics.frames,
        "learning_rates": update.learning_rates,
        "datasets": [dataset.name for dataset in session.config.data.datasets],
        "replicas": session.layout.data_size,
        "updates": session.optimization.updates,
    }


def _plain(value: Any) -> Any:
    """Valid JSON: what is no number becomes a word."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _remove_old(folder: Path, keep: int) -> None:
    found = sorted(path for path in folder.iterdir() if _FOLDER_NAME.fullmatch(path.name))
    for path in found[:-keep]:
        shutil.rmtree(path, ignore_errors=True)
