"""From the files of all ranks to a checkpoint that others see: one process, and nothing is seen before it is whole."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moss_train.checkpoint.description import LATEST, CheckpointDescription, step_name, write_description, write_durably
from moss_train.checkpoint.index import INDEX, Index, checksum_of_file, merged, rank_index_name, read_index
from moss_train.checkpoint.retention import REPLACED, TEMPORARY


def final_folder(run_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step is published."""
    return run_dir / "checkpoints" / step_name(step)


def temporary_folder(run_dir: Path, step: int, attempt: int = 0) -> Path:
    """Where it is written before; attempts of one process do not meet."""
    name = step_name(step) + (f".{attempt}" if attempt else "") + TEMPORARY
    return run_dir / "checkpoints" / name


def write_rank_index(folder: Path, rank: int, index: Index) -> None:
    """Tell the publishing process what this rank has written; the last file that a rank writes."""
    write_durably(folder / rank_index_name(rank), json.dumps(index.to_json()))


def complete(folder: Path, description: CheckpointDescription, indices: Iterable[Index]) -> None:
    """Write the index of all ranks' files, and last the description.

    Raises:
        OSError: the disk refuses it.
        ValueError: the ranks' files do not make whole tensors.
    """
    index = merged(indices)
    write_durably(folder / INDEX, json.dumps(index.to_json()))
    files = {name: list(figures) for name, figures in index.small.items()}
    files[INDEX] = list(checksum_of_file(folder / INDEX))
    write_description(folder, dataclasses.replace(description, files=files))
    sync_folder(folder)


def publish(run_dir: Path, temporary: Path, description: CheckpointDescription) -> Path:
    """Make a checkpoint of the files that all ranks have written into a temporary folder.

    Raises:
        OSError: the disk refuses it.
        ValueError, InputError: the ranks' files do not make a whole.
    """
    ranks = range(description.world_size)
    complete(temporary, description, [read_index(temporary / rank_index_name(rank)) for rank in ranks])
    for rank in ranks:
        (temporary / rank_index_name(rank)).unlink()
    return reveal(run_dir, temporary, description.step)


def reveal(run_dir: Path, temporary: Path, step: int) -> Path:
    """Give a complete folder its name, in the place of an earlier checkpoint of that step if there is one.

    Raises:
        OSError: the disk refuses it.
    """
    final = final_folder(run_dir, step)
    replaced = final.with_name(final.name + REPLACED)
    if final.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(final, replaced)
    os.replace(temporary, final)
    sync_folder(final.parent)
    write_durably(run_dir / LATEST, final.name)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk.

    Raises:
        OSError: the disk refuses it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def figures_of(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Bytes and crc32 of files, for `Index.small`."""
    return {name: checksum_of_file(folder / name) for name in names}
