"""What a folder of shards holds, also where no summary says it."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.schema import Sample
from data_pipeline.shards.distribution import Distribution
from data_pipeline.shards.schema import sample_from_dict
from data_pipeline.shards.tally import Tally
from data_pipeline.shards.writer import SUMMARY, folder_summary
from model.errors import InputError


def describe_folder(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The folder's summary, with statistics; what is not stored in it is read from the shards.

    Returns:
        The fields of `summary.json`, `statistics` (of `Tally.statistics`), `shard_megabytes` (spread of their sizes), and of
        a folder that another tool wrote `foreign`: endings of the members, and why its samples are not of this schema, if they
        are not.

    Raises:
        InputError: there are no shards, or they are damaged.
    """
    root = Path(folder)
    if (root / SUMMARY).is_file():
        from data_pipeline.shards.info import read_summary

        summary = read_summary(root)
        if "statistics" not in summary:
            summary["statistics"] = _count(root, list(summary["shards"])).statistics()
    else:
        summary = _describe_foreign(root)
    sizes = Distribution()
    for size in summary["shard_bytes"].values():
        sizes.add(size / 1e6)
    return {**summary, "shard_megabytes": {name: round(value, 3) for name, value in sizes.summary().items()}}


def _describe_foreign(root: Path) -> dict[str, Any]:
    shards = sorted(p.relative_to(root).as_posix() for p in root.glob("**/*.tar")) if root.is_dir() else []
    if not shards:
        raise InputError(f"{root} is not a dataset folder (it has no {SUMMARY} and no tar); write one with `moss data prepare`")
    fault, tally = "", Tally()
    try:
        tally = _count(root, shards)
    except InputError as error:
        fault = str(error)
    sizes = {name: (root / name).stat().st_size for name in shards}
    summary = folder_summary(tally, 0, dict.fromkeys(shards, ""), sizes)
    endings: Counter[str] = Counter()
    keys = 0
    for name in shards:
        for key, members in _samples(root / name):
            keys += 1
            endings.update(member.name[len(key) + 1 :] for member in members)
    foreign = {"indexed": (root / ".nv-meta" / ".info.json").is_file(), "endings": dict(endings.most_common(20)), "fault": fault}
    return {**summary, "samples": keys, "statistics": {} if fault else tally.statistics(), "foreign": foreign}


def _count(root: Path, shards: list[str]) -> Tally:
    tally = Tally()
    for name in shards:
        with _opened(root / name) as tar:
            for key, members in _grouped(tar):
                sample = _sample(tar, key, members, name)
                tally.add(sample, {member.name[len(key) + 1 :]: member.size for member in members})
    return tally


def _sample(tar: tarfile.TarFile, key: str, members: list[tarfile.TarInfo], shard: str) -> Sample:
    where = f"{shard} sample {key}"
    described = next((m for m in members if m.name == f"{key}.json"), None)
    content = tar.extractfile(described) if described else None
    if content is None:
        raise InputError(f"{where} has no member {key}.json")
    try:
        return sample_from_dict(json.loads(content.read()), where)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}") from None


def _samples(path: Path) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    with _opened(path) as tar:
        yield from _grouped(tar)


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"shard {path} cannot be read: {error}") from None


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, list[tarfile.TarInfo]]]:
    """Members that stand together and share a key: the name up to the first dot behind the last slash."""
    key, members = "", list[tarfile.TarInfo]()
    try:
        for member in tar:
            if not member.isfile():
                continue
            folder, slash, name = member.name.rpartition("/")
            found = folder + slash + name.partition(".")[0]
            if found != key and members:
                yield key, members
                members = []
            key = found
            members.append(member)
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
    except tarfile.TarError as error:
        raise InputError(f"shard {tar.name!s} cannot be read: {error}") from None
    if members:
        yield key, members
