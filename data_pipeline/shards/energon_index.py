"""Energon's metadata of a dataset folder: index, counts, one split, and a dataset of raw samples."""

from __future__ import annotations

import contextlib
import io
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron.energon.flavors import BaseWebdatasetFactory
from megatron.energon.flavors.webdataset import prepare as energon_prepare

from model.errors import InputError

SPLIT = "train"
"""The only split: a held-out set is a folder of its own."""

_DATASET_YAML = """\
__module__: megatron.energon
__class__: CrudeWebdataset
"""


def index_shards(folder: Path, shards: Mapping[str, str]) -> None:
    """Write `.nv-meta/` for the given shards (name -> digest of its bytes).

    Raises:
        InputError: Energon refuses the shards.
    """
    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk), _without_processes():
            BaseWebdatasetFactory.prepare_dataset(
                folder, list(shards), split_parts_patterns=[(SPLIT, ".*")], shuffle_seed=None, workers=1
            )
    except SystemExit:
        raise InputError(f"{folder} cannot be indexed: {talk.getvalue().strip()}") from None
    except (AssertionError, sqlite3.Error) as error:  # what it makes of a shard that it cannot read, and of a full disk
        raise InputError(
            f"{folder} cannot be indexed: {error}; make room or put it right, and run the same command again"
        ) from None
    meta = folder / ".nv-meta"
    (meta / "dataset.yaml").write_text(_DATASET_YAML)
    # Energon draws a random identity; one made of the bytes keeps the folder reproducible
    (meta / "index.uuid").write_text(str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(shards.values()))))


class _InProcess:
    """Energon's pool of readers, without its processes.

    They only read headers, so handing every row over costs more than they save; and they outlive a parent that is killed.
    """

    def __init__(
        self, num_workers: int, user_produce_data: Callable[[str], Iterator[Any]], aggregator: Any, *, batch_size: int = 1
    ) -> None:
        self._produce = user_produce_data
        self._aggregator = aggregator
        self._batch_size = batch_size
        self._tasks: list[str] = []

    def submit_task(self, task: str) -> None:
        self._tasks.append(task)

    def process(self) -> Any:
        self._aggregator.on_start(self)
        for task in self._tasks:
            batch: list[Any] = []
            for item in self._produce(task):
                batch.append(item)
                if len(batch) >= self._batch_size:
                    self._aggregator.on_item(batch, self)
                    batch = []
            self._aggregator.on_item(batch, self)
        self._aggregator.on_finish(self)
        return self._aggregator.get_final_result_data()


@contextlib.contextmanager
def _without_processes() -> Iterator[None]:
    original = energon_prepare.AggregatorPool
    energon_prepare.AggregatorPool = _InProcess
    try:
        yield
    finally:
        energon_prepare.AggregatorPool = original
