"""Texts to train a tokenizer on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipeline.shards.annotations import read_annotations
from data_pipeline.shards.info import read_samples
from model.errors import InputError


def corpus_texts(sources: Sequence[str]) -> Iterator[str]:
    """Texts of dataset folders, annotation files (`.jsonl`) and plain text files, one message or line at a time.

    Raises:
        InputError: a source is missing or of another kind.
    """
    for source in sources:
        path = Path(source)
        if path.is_dir():
            for _, sample in read_samples(path):
                yield from (message.content for message in sample.messages)
        elif path.suffix == ".jsonl":
            for annotation in read_annotations(path):
                yield from (message.content for message in annotation.sample.messages)
        elif path.is_file():
            try:
                yield from path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise InputError(f"text file {path} is not UTF-8: {error}") from None
        else:
            raise InputError(f"text source {path} does not exist")
