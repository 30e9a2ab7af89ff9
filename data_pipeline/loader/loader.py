"""Building a loader and keeping its place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any, Protocol

from data_pipeline.loader.blend import blend
from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.loader.ledger import Ledger, open_ledger
from data_pipeline.loader.readers import ReaderParts
from data_pipeline.loader.state import check_identity, check_whole, identity_of, new_state
from data_pipeline.loader.turns import Turns, reader_processes, readers_per_replica
from data_pipeline.loader.validation import ValidationLoader
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError


class Loader(Protocol):
    """An iterator of micro-batches that can say where it is."""

    ledger: Ledger

    def __iter__(self) -> Iterator[PackedMicroBatch]: ...
    def __next__(self) -> PackedMicroBatch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


def build_loader(
    data: DataSettings,
    stage: StageSettings,
    model_config: VideoMllamaConfig,
    tokenizer: Tokenizer,
    *,
    rank: int = 0,
    world_size: int = 1,
    split: str = "train",
    ledger: str | os.PathLike[str] | None = None,
    cache: str | None = None,
) -> Loader:
    """A loader of one data-parallel rank.

    Args:
        rank, world_size: place in the data-parallel group; model-parallel ranks pass the same and read the same.
        split: train (endless, shuffled, resumable) | validation (finite, fixed order).
        ledger: file that lists samples left out; a temporary one by default.
        cache: folder of copies of shards on this node's own disk; what is not there is read where the shards lie.

    Raises:
        InputError: a folder is missing, sizes do not divide, or the tokenizer belongs to another model.
    """
    if tokenizer.vocab_size != model_config.text.vocab_size:
        raise InputError(
            f"tokenizer {tokenizer.source} has {tokenizer.vocab_size} entries with a row in the head but "
            f"model.text.vocab_size is {model_config.text.vocab_size}; use the tokenizer of the model"
        )
    if ledger is None:
        handle, ledger = tempfile.mkstemp(prefix="quarantine-", suffix=".jsonl")
        os.close(handle)
    book = open_ledger(ledger, data)
    if split == "train":
        return TrainLoader(data, stage, model_config, tokenizer, book, rank, world_size, cache)
    if split == "validation":
        return ValidationLoader(data, stage, model_config, tokenizer, book, rank, world_size, cache)
    raise InputError(f"split is {split!r}; use train or validation")


class TrainLoader:
    """One replica's micro-batches of an endless or finite run, resumable at any number of replicas.

    Micro-batch n of the run comes from reader n mod `data.global_data_workers`, and goes to replica n mod world_size (counted
    from where this process began). So neither the number of replicas nor that of processes changes a global batch.

    Finite data (every dataset has `repeats`) end at the first micro-batch whose reader has none left: `next` raises StopIteration
    there and ever after, on the replica that the micro-batch belongs to; those who read together must stop together.

    Attributes:
        dataset_sizes: samples in one pass over each dataset that takes part.
    """

    def __init__(
        self,
        data: DataSettings,
        stage: StageSettings,
        model_config: VideoMllamaConfig,
        tokenizer: Tokenizer,
        ledger: Ledger,
        rank: int,
        world_size: int,
        cache: str | None = None,
    ) -> None:
        self.ledger = ledger
        self._rank, self._world_size = rank, world_size
        self._share = readers_per_replica(data.global_data_workers, world_size)
        self._num_processes = reader_processes(data.worker_processes, self._share)
        sources = blend(data.datasets, data.mixture, data.root, "data.datasets", data.storage, cache)
        self._parts = ReaderParts(data, stage, model_config, tokenizer, ledger, sources)
        opened = self._parts.open_datasets(rank)
        self.dataset_sizes = {source.name: len(o.dataset) for source, o in zip(sources, opened, strict=True)}
        self._identity = identity_of(data, stage, model_config, tokenizer, sources)
        self._begun_at = 0  # micro-batches of the run before this process
        self._given = 0  # micro-batches that this process gave
        self._ended = False
        self._states: dict[int, bytes | None] = {}
        self._turns: Turns | None = None

    @property
    def micro_batches_given(self) -> int:
        """By all replicas since the start of the run; right between steps, when all have given equally many."""
        return self._begun_at + self._given * self._world_size

    def __iter__(self) -> Iterator[PackedMicroBatch]:
        return self

    def __next__(self) -> PackedMicroBatch:
        """This replica's next micro-batch.

        Raises:
            StopIteration: the data have ended.
            InputError: a reader cannot go on.
        """
        if self._ended:
            raise StopIteration
        if self._turns is None:
            self._turns = Turns(self._parts, self._own_readers(), self._states, self._num_processes)
        try:
            batch = self._turns.take()
        except StopIteration:
            self._ended = True
            raise
        self._given += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """This replica's part of what is needed to continue with the next micro-batch (picklable, some ten kilobytes a reader).

        `state.merge_states` makes one state of the parts of all replicas.
        """
        states = self._turns.states() if self._turns is not None else {n: self._states.get(n) for n in self._own_readers()}
        return new_state(self._identity, self.micro_batches_given, states, self._ended)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the merged states of all replicas were saved, however many there were.

        Raises:
            InputError: a reader is missing, or the state is of a differently configured loader.
        """
        if self._turns is not None:
            raise RuntimeError("load_state_dict must come before the first micro-batch")
        check_whole(state)
        check_identity(state, self._identity)
        self._begun_at = state["micro_batches"]
        self._states = state["readers"]
        self._ended = state["ended"]

    def close(self) -> None:
        """Let go of the readers; processes end at once."""
        if self._turns is not None:
            self._turns.close()
        for source in self._parts.sources:
            source.close()

    def _own_readers(self) -> list[int]:
        """In the order in which they take turns from here on."""
        total = self._share * self._world_size
        return [(self._begun_at + self._rank + i * self._world_size) % total for i in range(self._share)]
