"""Writing a dataset folder: same samples in, same bytes out, and never half a folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import webdataset

from data_pipeline.schema import Sample
from data_pipeline.shards.energon_index import index_shards
from data_pipeline.shards.media_info import fill_info
from data_pipeline.shards.schema import check_sample, sample_to_dict
from data_pipeline.shards.tally import Tally
from model.errors import InputError

SUMMARY = "summary.json"
REPORT = "prepare_report.json"
"""Lists what `moss data prepare --skip-bad` left out; there only if it left out something."""
SHARD_PATTERN = "shard-%06d.tar"
_PASSED_OVER = re.compile(r"__[^/]*__/")
"""Such members readers take for remarks on the tar, and give no sample."""
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
    target = with_own_name(Path(out_dir))
    check_target(target, overwrite)
    if samples_per_shard < 1:
        raise InputError(f"samples per shard is {samples_per_shard}; it must be at least 1")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        tally = _write_tars(temporary, samples, samples_per_shard)
        shards = sorted(temporary.glob("*.tar"))
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}
        summary = folder_summary(tally, samples_per_shard, digests, {path.name: path.stat().st_size for path in shards})
        index_shards(temporary, digests)
        write_json(temporary / SUMMARY, summary)
        publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def with_own_name(path: Path) -> Path:
    """`.` and `..` written out, so that a file can be named after them."""
    return path if path.name not in ("", "..") else Path(os.path.abspath(path))


def check_target(target: Path, overwrite: bool) -> None:
    """Raises InputError unless a dataset folder may be written there."""
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file; choose a folder")
    found = sorted(entry.name for entry in target.iterdir())
    if found and not overwrite:
        raise InputError(f"{target} exists already; choose another folder or pass --overwrite")
    foreign = [name for name in found if name not in (SUMMARY, REPORT, ".nv-meta") and not _SHARD_NAME.fullmatch(name)]
    if foreign:
        raise InputError(
            f"{target} holds {foreign[0]}, which is no part of a dataset folder; move it away or choose another folder"
        )


def check_key(key: str, sample: Sample, where: str) -> None:
    """Raises InputError unless the names that the key gives to the members of a tar are read as they were meant."""
    if not key or "." in key or not key.isprintable():
        raise InputError(f"{where} has the key {key!r}; it must be printable, not empty and without a dot")
    if key.startswith("/") or key.endswith("/") or _PASSED_OVER.match(key):
        raise InputError(f"{where} has the key {key!r}; it must neither begin nor end with / nor begin with a folder __NAME__")
    longest = max((f"{key}.{name}" for name in ("json", *(m.file for m in sample.media))), key=len)
    if len(longest.encode("utf-8", "surrogatepass")) > 100:
        raise InputError(
            f"{where} has a key of {len(key)} characters; a name in a tar holds 100 bytes, the media's ending included"
        )


def _write_tars(folder: Path, samples: Iterable[tuple[str, Sample, Mapping[str, bytes]]], samples_per_shard: int) -> Tally:
    tally, keys = Tally(), set[str]()
    # mtime 0: the bytes depend on the samples alone; an integer, as a float would cost a second header for each member
    with webdataset.ShardWriter(
        str(folder / SHARD_PATTERN), maxcount=samples_per_shard, maxsize=1e15, verbose=0, encoder=False, mtime=0
    ) as writer:
        for key, sample, members in samples:
            check_key(key, sample, "the sample")
            if key in keys:
                raise InputError(f"two samples have the key {key!r}; give every sample a key of its own")
            for media in sample.media:
                if media.file not in members:
                    raise InputError(f"sample {key} names the media file {media.file} but no such content was given")
                fill_info(media, members[media.file], f"{key}.{media.file}")
            check_sample(sample, f"sample {key}")
            content = {m.file: bytes(members[m.file]) for m in sample.media}
            writer.write(tar_entry(key, sample, content))
            keys.add(key)
            tally.add(sample, {name: len(value) for name, value in content.items()})
    if not keys:
        raise InputError("there is no sample to write")
    return tally


def tar_entry(key: str, sample: Sample, content: Mapping[str, bytes]) -> dict[str, Any]:
    """What webdataset's writers take: the sample's json and its media files."""
    text = json.dumps(sample_to_dict(sample), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return {"__key__": key, "json": text.encode("utf-8"), **content}


def folder_summary(tally: Tally, samples_per_shard: int, digests: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, Any]:
    """The fields of `summary.json` that every dataset folder has.

    Args:
        digests, sizes: SHA-256 and bytes of each shard, in order.
    """
    return {
        "samples": tally.samples,
        "samples_per_shard": samples_per_shard,
        "kinds": dict(sorted(tally.kinds.items())),
        "media": dict(sorted(tally.media.items())),
        "video_seconds": round(tally.seconds, 3),
        "media_bytes": tally.media_bytes,
        "licenses": dict(sorted(tally.licenses.items())),
        "sources": dict(tally.sources.most_common(50)),
        "shards": dict(digests),
        "shard_bytes": dict(sizes),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """A readable file of plain values."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def publish(temporary: Path, target: Path) -> None:
    """Put a finished folder in its place, at once."""
    if target.exists():
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        os.replace(target, old)
        os.replace(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(temporary, target)
