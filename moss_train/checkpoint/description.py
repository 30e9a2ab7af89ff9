"""What a checkpoint says about itself, in `checkpoint.json`, and where the newest one of a run is. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config import VideoMllamaConfig
from model.errors import InputError

DESCRIPTION = "checkpoint.json"
LATEST = "latest"
BEST = "best"
"""Beside `latest`: names the checkpoint that did best in an evaluation, if the run looks for it."""
FORMAT = 2
_PUBLISHED = re.compile(r"step_\d{8,}")
_CHECKSUM = "checksum"


class DamagedError(InputError):
    """A checkpoint is not what was written."""


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
    files: dict[str, list[int]] = field(default_factory=dict)
    """Bytes and crc32 of every file beside this one that holds no tensors."""
    format: int = FORMAT

    @property
    def applied(self) -> int:
        """Updates really applied."""
        return self.step if self.updates is None else self.updates

    @property
    def config(self) -> VideoMllamaConfig:
        return VideoMllamaConfig.from_dict(self.model)


def step_name(step: int) -> str:
    """`step_00000010` for 10."""
    return f"step_{step:08d}"


def read_description(folder: Path) -> CheckpointDescription:
    """Read `checkpoint.json`.

    Raises:
        DamagedError: it cannot be read.
        InputError: no such file, or written by another version.
    """
    path = folder / DESCRIPTION
    try:
        values = json.loads(path.read_bytes())
        form = int(values.get("format", 1))
    except FileNotFoundError:
        raise InputError(f"{folder} is not a checkpoint: it has no {DESCRIPTION}") from None
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror}); make it readable or use an earlier checkpoint") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} cannot be read ({error}); the checkpoint is damaged, use an earlier one") from None
    if form > FORMAT:
        raise InputError(f"{path} has format {form}; this version reads up to {FORMAT}, install a newer one")
    if form < FORMAT and _CHECKSUM not in values:
        raise InputError(
            f"{path} has format {form}, which this version no longer reads; write its weights with `moss convert to-hf` of the "
            "version that made it, and give the result as train.init_from"
        )
    try:
        if values.pop(_CHECKSUM) != _checksum(values):
            raise ValueError("it does not have the checksum that it was written with")
        return CheckpointDescription(**values)
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedError(f"{path} cannot be read ({error}); the checkpoint is damaged, use an earlier one") from None


def write_description(folder: Path, description: CheckpointDescription) -> None:
    """Write `checkpoint.json`."""
    values = json.loads(json.dumps(dataclasses.asdict(description)))
    write_durably(folder / DESCRIPTION, json.dumps(values | {_CHECKSUM: _checksum(values)}, indent=1))


def _checksum(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old content or the new, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_durably(path: Path, text: str) -> None:
    """As `write_atomically`, and the content is on the disk before the name is."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def published_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; whether their content is good is not looked at.

    Raises:
        InputError: the folder cannot be listed.
    """
    try:
        names = os.listdir(run_dir / "checkpoints")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{run_dir / 'checkpoints'} cannot be read ({error.strerror}); make it readable") from None
    folders = [run_dir / "checkpoints" / name for name in names if _PUBLISHED.fullmatch(name)]
    return sorted((folder for folder in folders if (folder / DESCRIPTION).is_file()), key=step_of)


def step_of(folder: Path) -> int:
    """10 for `…/step_00000010`."""
    return int(folder.name.rpartition("_")[2])


def newest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint of the highest step; None where the run has none.

    The file `latest` names it for people and other programs; what is there counts.
    """
    folders = published_checkpoints(run_dir)
    return folders[-1] if folders else None


def best_checkpoint(run_dir: Path) -> Path:
    """The checkpoint that the file `best` names.

    Raises:
        InputError: there is no such file, or no such checkpoint.
    """
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}@{BEST}: {run_dir} is no run folder; check the path")
    try:
        name = (run_dir / BEST).read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise InputError(
            f"{run_dir} has no readable file {BEST}; give {run_dir} for its newest checkpoint, or let a run look for the best "
            "with evaluation.best"
        ) from None
    folder = run_dir / "checkpoints" / name
    if not _PUBLISHED.fullmatch(name) or not (folder / DESCRIPTION).is_file():
        raise InputError(f"{run_dir / BEST} names {name!r}, which is no checkpoint of the run; give another")
    return folder


def find_checkpoint(path: Path | str) -> Path:
    """The checkpoint folder that a path means: a checkpoint itself, a run folder's newest, or with `RUN@best` its best.

    Raises:
        InputError: none of them.
    """
    folder = Path(path)
    if folder.name.endswith(f"@{BEST}") and not folder.exists():
        return best_checkpoint(folder.with_name(folder.name.removesuffix(f"@{BEST}")))
    if (folder / DESCRIPTION).is_file():
        return folder
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; give a run folder, a checkpoint folder or a Hugging Face folder")
    newest = newest_checkpoint(folder)
    if newest is None:
        raise InputError(f"{folder} holds no published checkpoint; let a run save one, or give another folder")
    return newest


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
