"""Writing a dataset folder: same samples in, same bytes out, and never half a folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import webdataset

from data_pipeline.schema import Sample
from data_pipeline.shards.energon_index import index_shards
from data_pipeline.shards.media_info import fill_info
from data_pipeline.shards.schema import check_sample, sample_to_dict
from model.errors import InputError

SUMMARY = "summary.json"
SHARD_PATTERN = "shard-%06d.tar"
_SHARD_NAME = re.compile(r"shard-\d{6,}\.tar(\.idx)?")


def write_samples(
    out_dir: str | os.PathLike[str],
    samples: Iterable[tuple[str, Sample, Mapping[str, bytes]]],
    samples_per_shard: int = 1000,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write samples as WebDataset shards with Energon's index.

    Args:
        out_dir: the dataset folder; appears when everything is written.
        samples: (key, sample, content of each `media.file`). A key is unique and has no dot.
        samples_per_shard: samples in one tar.
        overwrite: replace a dataset folder that is there; a folder that holds anything else is left alone.

    Returns:
        The summary that is also stored as `summary.json`: samples, shards, kinds, frames, media, licences.

    Raises:
        InputError: the folder exists or holds other files, a key is unusable, a media file is missing or unreadable, or there
            is no sample.
    """
    target = Path(out_dir)
    _check_target(target, overwrite)
    if samples_per_shard < 1:
        raise InputError(f"samples per shard is {samples_per_shard}; it must be at least 1")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        tally = _Tally()
        _write_tars(temporary, samples, samples_per_shard, tally)
        summary = tally.summary(temporary, samples_per_shard)
        index_shards(temporary, summary["shards"])
        _write_json(temporary / SUMMARY, summary)
        _publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file; choose a folder")
    found = sorted(entry.name for entry in target.iterdir())
    if found and not overwrite:
        raise InputError(f"{target} exists already; choose another folder or pass --overwrite")
    foreign = [name for name in found if name not in (SUMMARY, ".nv-meta") and not _SHARD_NAME.fullmatch(name)]
    if foreign:
        raise InputError(
            f"{target} holds {foreign[0]}, which is no part of a dataset folder; move it away or choose another folder"
        )


class _Tally:
    """Counts over all samples written."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.media: Counter[str] = Counter()
        self.licenses: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.seconds = 0.0
        self.media_bytes = 0

    def add(self, key: str, sample: Sample, members: Mapping[str, bytes]) -> None:
        self.keys.add(key)
        self.kinds[sample.kind] += 1
        self.licenses[sample.license] += 1
        self.sources[sample.source] += 1
        for media in sample.media:
            self.media[media.type] += 1
            self.seconds += media.duration or 0.0
        self.media_bytes += sum(len(content) for content in members.values())

    def summary(self, folder: Path, samples_per_shard: int) -> dict[str, Any]:
        if not self.keys:
            raise InputError("there is no sample to write")
        shards = sorted(p.name for p in folder.glob("*.tar"))
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in shards}
        return {
            "samples": len(self.keys),
            "samples_per_shard": samples_per_shard,
            "kinds": dict(sorted(self.kinds.items())),
            "media": dict(sorted(self.media.items())),
            "video_seconds": round(self.seconds, 3),
            "media_bytes": self.media_bytes,
            "licenses": dict(sorted(self.licenses.items())),
            "sources": dict(self.sources.most_common(50)),
            "shards": digests,
            "shard_bytes": {name: (folder / name).stat().st_size for name in shards},
        }


def _write_tars(
    folder: Path, samples: Iterable[tuple[str, Sample, Mapping[str, bytes]]], samples_per_shard: int, tally: _Tally
) -> None:
    # mtime 0: the bytes depend on the samples alone; an integer, as a float would cost a second header for each member
    with webdataset.ShardWriter(
        str(folder / SHARD_PATTERN), maxcount=samples_per_shard, maxsize=1e15, verbose=0, encoder=False, mtime=0
    ) as writer:
        for key, sample, members in samples:
            if not key or "." in key or key in tally.keys:
                raise InputError(f"sample key {key!r} must be unique, not empty and without a dot")
            _complete(key, sample, members)
            text = json.dumps(sample_to_dict(sample), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
            content = {m.file: bytes(members[m.file]) for m in sample.media}
            writer.write({"__key__": key, "json": text.encode("utf-8"), **content})
            tally.add(key, sample, content)


def _complete(key: str, sample: Sample, members: Mapping[str, bytes]) -> None:
    for media in sample.media:
        if media.file not in members:
            raise InputError(f"sample {key} names the media file {media.file} but no such content was given")
        fill_info(media, members[media.file], f"{key}.{media.file}")
    check_sample(sample, f"sample {key}")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _publish(temporary: Path, target: Path) -> None:
    if target.exists():
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        os.replace(target, old)
        os.replace(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, target)
