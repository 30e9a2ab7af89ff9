"""What `moss data prepare` will write: one pass over the annotation file that keeps a few numbers a line, however many lines."""

from __future__ import annotations

import hashlib
import os
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.shards.annotations import Annotation, parse_annotation
from data_pipeline.shards.transcode import TranscodeSettings, encoder_versions
from data_pipeline.shards.writer import check_key
from model.errors import InputError

FORMAT = 1
"""Grows when the same plan would give other bytes."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What decides about the bytes of the shards, besides the annotations and their media."""

    samples_per_shard: int = 1000
    max_shard_bytes: int | None = None
    """A tar is closed before it grows beyond; a larger sample gets one of its own."""
    shuffle_seed: int | None = None
    """Order in which samples are stored; None keeps the file's."""
    skip_bad: bool = False
    """Leave out lines that are unsound or whose media cannot be read, instead of stopping."""
    require_license: bool = False
    """A sample without a licence is unsound."""
    transcode: TranscodeSettings | None = None
    """None stores videos as they are."""

    def __post_init__(self) -> None:
        if self.samples_per_shard < 1:
            raise InputError(f"samples per shard is {self.samples_per_shard}; it must be at least 1")
        if self.max_shard_bytes is not None and self.max_shard_bytes < 1:
            raise InputError(f"bytes per shard is {self.max_shard_bytes}; it must be positive")


@dataclass(frozen=True)
class Group:
    """Lines that go into shards of their own: the unit of work, and of what an interrupted run keeps."""

    number: int
    source: Path
    lines: tuple[tuple[int, int], ...]
    """(line number from 1, offset in bytes)."""
    media_stamp: str
    """Changes with the size or the date of any of the media files."""
    options: PrepareOptions


class Plan:
    """The groups of an annotation file.

    Attributes:
        samples: lines with something in them.
        groups: how many groups there are.
    """

    def __init__(self, source: Path, options: PrepareOptions) -> None:
        """
        Raises:
            InputError: the file is missing, two lines have one key, or, unless `options.skip_bad`, a line is unsound, lacks a
                licence where it must have one, or names a file that is missing.
        """
        if not source.is_file():
            raise InputError(f"annotations {source} do not exist; make them with `moss data import`")
        self.source = source
        self.options = options
        self._numbers, self._offsets = array("I"), array("Q")
        self._keys, self._stamps = array("Q"), array("Q")
        self._digest = self._read()
        self.samples = len(self._offsets)
        self.groups = -(-self.samples // options.samples_per_shard)
        self._refuse_equal_keys()
        self._order = array("I", range(self.samples))
        if options.shuffle_seed is not None:
            random.Random(options.shuffle_seed).shuffle(self._order)  # type: ignore[arg-type]

    def group(self, number: int) -> Group:
        """One of `groups`."""
        step = self.options.samples_per_shard
        rows = self._order[number * step : (number + 1) * step]
        stamp = hashlib.blake2b(array("Q", [self._stamps[row] for row in rows]).tobytes(), digest_size=16).hexdigest()
        lines = tuple((self._numbers[row], self._offsets[row]) for row in rows)
        return Group(number, self.source, lines, stamp, self.options)

    def to_dict(self) -> dict[str, Any]:
        """What must be the same for an interrupted run to go on; the number of workers and `skip_bad` need not be."""
        transcode = self.options.transcode
        return {
            "format": FORMAT,
            "annotations": self._digest,
            "samples_per_shard": self.options.samples_per_shard,
            "max_shard_bytes": self.options.max_shard_bytes,
            "shuffle_seed": self.options.shuffle_seed,
            "require_license": self.options.require_license,
            "transcode": transcode.to_dict() if transcode else None,
            "versions": encoder_versions() if transcode else None,
        }

    def _read(self) -> str:
        digest = hashlib.sha256()
        offset = 0
        with self.source.open("rb") as file:
            for number, line in enumerate(file, start=1):
                digest.update(line)
                if line.strip():
                    self._add(line, number, offset)
                offset += len(line)
        return digest.hexdigest()

    def _add(self, line: bytes, number: int, offset: int) -> None:
        key, stamp = f"\0{number}", 0  # an unsound line has no key that another could have
        try:
            annotation = sound_annotation(line, self.source, number, self.options)
            key, stamp = annotation.key, _stamp(annotation)
            if not self.options.skip_bad:
                _require_files(annotation, self.source, number)
        except InputError:
            if not self.options.skip_bad:
                raise
        self._numbers.append(number)
        self._offsets.append(offset)
        self._keys.append(_hash(key))
        self._stamps.append(stamp)

    def _refuse_equal_keys(self) -> None:
        keys = np.frombuffer(self._keys, dtype=np.uint64) if self._keys else np.zeros(0, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        for place in np.flatnonzero(keys[order[1:]] == keys[order[:-1]]):
            rows = [int(order[place]), int(order[place + 1])]
            first, second = (self._key_of(row) for row in rows)
            if first == second:
                lines = " and ".join(str(self._numbers[row]) for row in rows)
                raise InputError(f"{self.source} has the key {first!r} in lines {lines}; give every sample a key of its own")

    def _key_of(self, row: int) -> str:
        with self.source.open("rb") as file:
            file.seek(self._offsets[row])
            return parse_annotation(file.readline(), str(self.source), self.source.parent).key


def sound_annotation(line: bytes, source: Path, number: int, options: PrepareOptions) -> Annotation:
    """Parse a line and check what a shard asks of it beyond being a sample.

    Raises:
        InputError: naming file, line and what is wrong.
    """
    where = f"{source} line {number}"
    annotation = parse_annotation(line, where, source.parent)
    key, sample = annotation.key, annotation.sample
    check_key(key, sample, where)
    if options.require_license and not (sample.license or (sample.media and all(m.license for m in sample.media))):
        raise InputError(f"{where} sample {key} has no license; state one, or prepare without --require-license")
    return annotation


def _require_files(annotation: Annotation, source: Path, number: int) -> None:
    for path in media_paths(annotation):
        if not path.is_file():
            raise InputError(f"{source} line {number} sample {annotation.key}: media file {path} does not exist")


def media_paths(annotation: Annotation) -> Iterator[Path]:
    """Files of the sample's media, in their order."""
    return (annotation.files[media.file] for media in annotation.sample.media)


def _stamp(annotation: Annotation) -> int:
    found = []
    for path in media_paths(annotation):
        try:
            status = os.stat(path)
            found.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((str(path), -1, -1))
    return _hash(repr(found)) if found else 0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
