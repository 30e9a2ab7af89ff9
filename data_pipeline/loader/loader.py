"""Building a loader and keeping its place."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterator
from typing import Any, Protocol

from megatron.energon import WorkerConfig, get_savable_loader
from megatron.energon.metadataset.loader_interface import DatasetBlendMode
from torch.utils.data._utils.signal_handling import _remove_worker_pids  # type: ignore[attr-defined]

from data_pipeline.loader.blend import blend, open_sources
from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.loader.ledger import Ledger, open_ledger
from data_pipeline.loader.parts import build_encoder, explained, quietly
from data_pipeline.loader.validation import ValidationLoader
from data_pipeline.loader.workers import outlive_termination
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError

STATE_VERSION = 1


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
    data_parallel_group: Any = None,
    split: str = "train",
    ledger: str | os.PathLike[str] | None = None,
) -> Loader:
    """A loader of one data-parallel rank.

    Args:
        rank, world_size: place in the data-parallel group; model-parallel ranks pass the same and read the same.
        split: train (endless, shuffled, resumable) | validation (finite, fixed order).
        ledger: file that lists samples left out; a temporary one by default.

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
        return _TrainLoader(data, stage, model_config, tokenizer, book, rank, world_size, data_parallel_group)
    if split == "validation":
        return ValidationLoader(data, stage, model_config, tokenizer, book, rank, world_size)
    raise InputError(f"split is {split!r}; use train or validation")


def workers_per_rank(global_data_workers: int, world_size: int) -> int:
    """Loader workers of each data-parallel rank.

    Raises:
        InputError: the workers cannot be shared out evenly.
    """
    if global_data_workers < 1 or global_data_workers % world_size:
        sizes = [str(n) for n in range(1, global_data_workers + 1) if global_data_workers % n == 0]
        raise InputError(
            f"data.global_data_workers is {global_data_workers}, which {world_size} data-parallel ranks cannot share; "
            f"with it the data-parallel size may be {', '.join(sizes) or 'none'}"
        )
    return global_data_workers // world_size


class _TrainLoader:
    """Endless and resumable. The order depends on the global number of workers, not on how ranks share them."""

    def __init__(
        self,
        data: DataSettings,
        stage: StageSettings,
        model_config: VideoMllamaConfig,
        tokenizer: Tokenizer,
        ledger: Ledger,
        rank: int,
        world_size: int,
        group: Any,
    ) -> None:
        workers = workers_per_rank(data.global_data_workers, world_size)
        in_process = data.worker_processes == 0 and workers == 1
        self.ledger = ledger
        sources = blend(data.datasets, data.mixture, data.root, "data.datasets")
        config = WorkerConfig(
            rank=rank,
            world_size=world_size,
            num_workers=0 if in_process else workers,
            data_parallel_group=group,
            seed_offset=data.seed,
        )
        opened = open_sources(sources, config, shuffle=data.shuffle_buffer > 0)
        total = sum(len(o.dataset) for o in opened)
        encoder = build_encoder(data, stage, model_config, tokenizer, ledger, total, data.samples_per_pack)
        dataset = encoder.build_train_datasets(
            datasets=opened,
            worker_config=config,
            batch_size=None,
            packing_buffer_size=data.packing_buffer,
            shuffle_buffer_size=data.shuffle_buffer if data.shuffle_buffer > 1 else None,
            blend_mode=DatasetBlendMode.DATASET_WEIGHT,
        )
        # in the training process a forced garbage collection would cost more than the loading
        collect_every = 0 if in_process else 10
        self._loader = quietly(get_savable_loader, dataset, watchdog_timeout_seconds=None, gc_collect_every_n_steps=collect_every)
        outlive_termination(self._loader)
        self._identity = {
            "version": STATE_VERSION,
            "data.global_data_workers": data.global_data_workers,
            "data-parallel size": world_size,
            "data-parallel rank": rank,
            "data.worker_processes": in_process,
            "data.seed": data.seed,
            "data.shuffle_buffer": data.shuffle_buffer,
            "data.packing_buffer": data.packing_buffer,
            "data.datasets": [(s.name, round(s.share, 9)) for s in sources],
        }
        self._iterator: Iterator[PackedMicroBatch] | None = None

    def __iter__(self) -> Iterator[PackedMicroBatch]:
        return self

    def __next__(self) -> PackedMicroBatch:
        with explained(self.ledger):
            if self._iterator is not None:
                return next(self._iterator)
            self._iterator = quietly(iter, self._loader)
            try:
                return quietly(next, self._iterator)  # type: ignore[no-any-return]
            finally:  # now, so that it comes before torch's own clean-up, which waits for each worker
                atexit.register(self.close)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue with the next micro-batch (picklable, some ten kilobytes)."""
        return {**self._identity, "energon": self._loader.save_state_rank()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was called.

        Raises:
            InputError: the state is of a differently configured loader.
        """
        if self._iterator is not None:
            raise RuntimeError("load_state_dict must come before the first micro-batch")
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise InputError(
                    f"the saved place in the data was made with {name} = {state.get(name)}, now it is {value}; "
                    "continue with the saved value or start a new run"
                )
        self._loader.restore_state_rank(state["energon"])

    def close(self) -> None:
        """End the worker processes at once; they hold nothing that must be saved."""
        atexit.unregister(self.close)
        _stop_workers(getattr(self._loader, "_iterator", None))
        self._iterator = None
        self._loader = None


def _stop_workers(iterator: Any) -> None:
    """Kill and collect the processes of a torch loader; left alone, each would take seconds to notice the end.

    A signal that asks would not do: forked workers inherit the handlers of the training process.
    """
    workers = getattr(iterator, "_workers", [])
    if not workers:
        return
    _remove_worker_pids(id(iterator))  # their death is no fault
    iterator._worker_pids_set = False
    for worker in workers:
        worker.kill()
    iterator._shutdown_workers()
