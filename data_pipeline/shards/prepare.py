"""From an annotation file to a dataset folder."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_pipeline.schema import Sample
from data_pipeline.shards.annotations import Annotation, read_annotations
from data_pipeline.shards.writer import write_samples
from model.errors import InputError


def prepare(
    annotations: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    samples_per_shard: int = 1000,
    shuffle_seed: int | None = None,
    overwrite: bool = False,
    on_sample: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the shards of an annotation file.

    Args:
        shuffle_seed: order in which samples are stored; None keeps the file's.
        on_sample: called with (samples written, samples in all).

    Returns:
        The summary of `write_samples`.

    Raises:
        InputError: a line is unsound, or a media file is missing or unreadable.
    """
    lines = list(read_annotations(annotations))
    if shuffle_seed is not None:
        random.Random(shuffle_seed).shuffle(lines)
    return write_samples(out_dir, _load(lines, on_sample), samples_per_shard, overwrite)


def _load(
    lines: list[Annotation], on_sample: Callable[[int, int], None] | None
) -> Iterator[tuple[str, Sample, Mapping[str, bytes]]]:
    for number, line in enumerate(lines):
        members = {}
        for name, path in line.files.items():
            try:
                members[name] = path.read_bytes()
            except OSError as error:
                raise InputError(f"sample {line.key}: media file {path} cannot be read: {error.strerror}") from None
        yield line.key, line.sample, members
        if on_sample is not None:
            on_sample(number + 1, len(lines))
