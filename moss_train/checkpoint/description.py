"""What a checkpoint says about itself, in `checkpoint.json`, and where the newest one of a run is. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config import VideoMllamaConfig
from model.errors import InputError

DESCRIPTION = "checkpoint.json"
LATEST = "latest"
FORMAT = 1


@dataclass(kw_only=True)
class CheckpointDescription:
    """The part of a checkpoint that a person or another command reads."""

    step: int
    model: dict[str, Any]
    """Nested values of `VideoMllamaConfig`."""
    stage: dict[str, Any] = field(default_factory=dict)
    """Values of the stage that wrote it; `name` is the stage's name."""
    weights_only: bool = False
    """True where there is no optimizer state to continue from."""
    data_size: int = 1
    """Data-parallel replicas whose loaders were saved."""
    world_size: int = 1
    lora: dict[str, Any] | None = None
    """Values of `model.lora.spec.LoraSpec` where the checkpoint holds adapters beside the weights that they adapt."""
    samples: dict[str, int] = field(default_factory=dict)
    """Samples of each dataset that the run had trained on, by dataset name."""
    updates: int | None = None
    """Updates applied: fewer than `step` where some were left out; None means all."""
    monitors: dict[str, Any] = field(default_factory=dict)
    """What the monitors of the run keep, by their names."""
    format: int = FORMAT

    @property
    def config(self) -> VideoMllamaConfig:
        return VideoMllamaConfig.from_dict(self.model)


def step_name(step: int) -> str:
    """`step_00000010` for 10."""
    return f"step_{step:08d}"


def read_description(folder: Path) -> CheckpointDescription:
    """Read `checkpoint.json`.

    Raises:
        InputError: no such file, broken, or written by a newer version.
    """
    path = folder / DESCRIPTION
    try:
        values = json.loads(path.read_text())
        description = CheckpointDescription(**values)
    except FileNotFoundError:
        raise InputError(f"{folder} is not a checkpoint: it has no {DESCRIPTION}") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); the checkpoint is damaged, use an earlier one") from None
    if description.format > FORMAT:
        raise InputError(f"{path} has format {description.format}; this version reads up to {FORMAT}, install a newer one")
    return description


def write_description(folder: Path, description: CheckpointDescription) -> None:
    """Write `checkpoint.json`."""
    write_atomically(folder / DESCRIPTION, json.dumps(dataclasses.asdict(description), indent=1))


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old content or the new, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint that `latest` names; None where the run has none.

    Raises:
        InputError: `latest` names a folder that is not there.
    """
    pointer = run_dir / LATEST
    if not pointer.is_file():
        return None
    folder = run_dir / "checkpoints" / pointer.read_text().strip()
    if not (folder / DESCRIPTION).is_file():
        raise InputError(f"{pointer} names {folder.name}, which is not in {folder.parent}; write another one's name into it")
    return folder


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint folder that a path means: a checkpoint itself, or a run folder's newest.

    Raises:
        InputError: neither of them.
    """
    folder = Path(path)
    if (folder / DESCRIPTION).is_file():
        return folder
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; give a run folder, a checkpoint folder or a Hugging Face folder")
    newest = newest_checkpoint(folder)
    if newest is None:
        raise InputError(f"{folder} holds no published checkpoint (no file {LATEST}); let a run save one, or give another folder")
    return newest


def remove_old(run_dir: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` checkpoints (at least the one that `latest` names stays); returns what went."""
    folders = sorted(f for f in (run_dir / "checkpoints").glob("step_*") if f.is_dir() and f.suffix != ".tmp")
    newest = newest_checkpoint(run_dir)
    removed = []
    for folder in folders[: max(0, len(folders) - max(1, keep))]:
        if folder != newest:
            shutil.rmtree(folder)
            removed.append(folder.name)
    return removed


def first_difference(ours: VideoMllamaConfig, theirs: VideoMllamaConfig) -> str | None:
    """`text.hidden_size is 64 here and 128 there` for the first field that differs in the weights; None if none does.

    The numerical switches are no property of the weights and are not compared.
    """
    for section in ("vision", "text"):
        a, b = getattr(ours, section), getattr(theirs, section)
        for f in dataclasses.fields(a):
            mine, other = getattr(a, f.name), getattr(b, f.name)
            if mine != other:
                return f"{section}.{f.name} is {mine} in this run's model and {other} there"
    return None
