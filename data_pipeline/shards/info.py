"""Looking into a dataset folder."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.schema import Sample
from data_pipeline.shards.schema import sample_from_dict
from data_pipeline.shards.writer import SUMMARY
from model.errors import InputError


def read_summary(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_samples` wrote about a folder.

    Raises:
        InputError: not a dataset folder.
    """
    path = Path(folder) / SUMMARY
    if not path.is_file():
        raise InputError(f"{folder} is not a dataset folder (it has no {SUMMARY}); write one with `moss data prepare`")
    try:
        summary: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(summary, dict) or not all(isinstance(summary.get(n, {}), dict) for n in ("shards", "shard_bytes")):
            raise ValueError("it is no summary of shards")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); write the folder again with `moss data prepare`") from None
    return summary


def check_shards(folder: str | os.PathLike[str]) -> list[str]:
    """One sentence for each shard that is missing or has other bytes than were written."""
    faults = []
    for name, digest in read_summary(folder)["shards"].items():
        path = Path(folder) / name
        if not path.is_file():
            faults.append(f"{path} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            faults.append(f"{path} was changed since it was written")
    return faults


def check_sizes(folder: str | os.PathLike[str]) -> None:
    """A glance at every shard, cheap enough for the start of each run.

    Raises:
        InputError: a shard is missing or not as long as it was written.
    """
    for name, size in read_summary(folder).get("shard_bytes", {}).items():
        path = Path(folder) / name
        if not path.is_file():
            raise InputError(f"shard {path} is missing; write the folder again with `moss data prepare --overwrite`")
        if path.stat().st_size != size:
            raise InputError(
                f"shard {path} has {path.stat().st_size} bytes instead of {size}; "
                "copy it again or write the folder again with `moss data prepare --overwrite`"
            )


def read_samples(folder: str | os.PathLike[str]) -> Iterator[tuple[str, Sample]]:
    """(key, sample) of every sample in stored order; media are not read.

    Raises:
        InputError: a shard is missing or damaged.
    """
    for name in read_summary(folder)["shards"]:
        path = Path(folder) / name
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    if not member.name.endswith(".json"):
                        continue
                    content = tar.extractfile(member)
                    assert content is not None  # regular files only: the writer makes no others
                    key = member.name[: -len(".json")]
                    yield key, sample_from_dict(json.loads(content.read()), f"{name} sample {key}")
        except (OSError, tarfile.TarError, ValueError, RecursionError) as error:
            raise InputError(f"shard {path} cannot be read: {error}") from None
