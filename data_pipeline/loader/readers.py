"""One reader: an Energon pipeline of its own over its share of the data, in whatever process it runs."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from megatron.energon import WorkerConfig
from megatron.energon.cache import NoCachePool
from megatron.energon.metadataset.loader_interface import DatasetBlendMode, LoadedDataset
from megatron.energon.savable_loader import SimpleSavableDatasetWrapper

from data_pipeline.loader.blend import Source, open_sources
from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.parts import build_encoder, explained
from data_pipeline.loader.state import energon_version
from data_pipeline.loader.task_encoder import MossTaskEncoder
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError


@dataclass(frozen=True)
class ReaderParts:
    """What every reader of a run is made of."""

    data: DataSettings
    stage: StageSettings
    model_config: VideoMllamaConfig
    tokenizer: Tokenizer
    ledger: Ledger
    sources: Sequence[Source]

    def open_datasets(self, number: int) -> list[LoadedDataset]:
        """The datasets as the reader sees them.

        Raises:
            InputError: a dataset has fewer samples than there are readers.
        """
        return open_sources(self.sources, self._config(number), shuffle=self.data.shuffle_buffer > 0)

    def open(self, number: int, state: bytes | None = None) -> Reader:
        """A reader at the beginning of its data, or where `state` was taken."""
        data, config = self.data, self._config(number)
        opened = self.open_datasets(number)
        total = sum(len(o.dataset) for o in opened)
        encoder = build_encoder(data, self.stage, self.model_config, self.tokenizer, self.ledger, total, data.samples_per_pack)
        dataset = encoder.build_train_datasets(
            datasets=opened,
            worker_config=config,
            batch_size=None,
            packing_buffer_size=data.packing_buffer,
            shuffle_buffer_size=data.shuffle_buffer if data.shuffle_buffer > 1 else None,
            blend_mode=DatasetBlendMode.DATASET_WEIGHT,
        )
        # without a torch loader: its forced garbage collections would cost more than the reading
        return Reader(number, SimpleSavableDatasetWrapper(dataset, config, NoCachePool()), encoder, self.ledger, state)

    def _config(self, number: int) -> WorkerConfig:
        # To Energon every reader is a rank without workers, so that its samples depend on its number alone.
        return WorkerConfig(rank=number, world_size=self.data.global_data_workers, num_workers=0, seed_offset=self.data.seed)


class Reader:
    """The micro-batches of one reader, in order. Several readers of a process may take turns."""

    def __init__(
        self,
        number: int,
        pipeline: SimpleSavableDatasetWrapper[Any],
        encoder: MossTaskEncoder,
        ledger: Ledger,
        state: bytes | None,
    ) -> None:
        self.number = number
        self._pipeline = pipeline
        self._encoder = encoder
        self._ledger = ledger
        self._restored = state
        self._ended = False
        if state is not None:
            self._restore(state)
        self._iterator: Any = None

    def __iter__(self) -> Reader:
        return self

    def __next__(self) -> PackedMicroBatch:
        """The next micro-batch.

        Raises:
            StopIteration: the data are finite and this reader's share of them is used up.
            InputError: reading cannot go on.
        """
        if self._ended:
            raise StopIteration
        if self._iterator is None:
            self._iterator = iter(self._pipeline)
            self._restored = None
        with explained(self._ledger):
            found = next(self._iterator, None)
        if found is None:
            self._ended = True
            raise StopIteration
        _, _, batch = found
        return batch  # type: ignore[no-any-return]

    def pass_over(self) -> list[str]:
        """Move on by a micro-batch without decoding it.

        Returns:
            Keys of its samples, of those too that cannot be decoded and stand in no ledger that the reader was given.

        Raises:
            StopIteration: as `next`.
            InputError: as `next`.
        """
        self._encoder.decodes = False
        try:
            found: Any = next(self)
        finally:
            self._encoder.decodes = True
        return list(found.sample_keys)

    def state(self) -> bytes | None:
        """The place behind the last micro-batch; None at the beginning of the data."""
        if self._iterator is None:
            return self._restored
        return pickle.dumps({"ended": self._ended, "pipeline": None if self._ended else self._pipeline.save_state()})

    def _restore(self, state: bytes) -> None:
        try:
            content = pickle.loads(state)
            self._ended = content["ended"]
            if not self._ended:
                self._pipeline.restore_state(content["pipeline"])
        except (AssertionError, AttributeError, ImportError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise InputError(
                f"the saved place of reader {self.number} does not fit Energon {energon_version()} "
                f"({type(error).__name__}: {error}); install the version that wrote it or start a new run"
            ) from error
