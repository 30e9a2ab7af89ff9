"""The held-out side: finite, in fixed order, the same packs whatever the number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from megatron.energon import WorkerConfig
from megatron.energon.cache import NoCachePool
from megatron.energon.savable_loader import SimpleSavableDatasetWrapper

from data_pipeline.loader.blend import held_out, open_sources
from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.parts import build_encoder, explained
from data_pipeline.loader.task_encoder import PlannedSample
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig


class ValidationLoader:
    """Every rank forms all packs, which costs little, and decodes each `world_size`-th.

    The datasets of the trained modalities take turns, a pack each, so that the first packs already show them all.
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
        self._buffer = max(1, data.packing_buffer)
        self._sources = held_out(data.validation, data.mixture, data.root, "data.validation", data.storage, cache)
        self._config = WorkerConfig(rank=0, world_size=1, num_workers=0, seed_offset=data.seed)
        opened = open_sources(self._sources, self._config, shuffle=False)
        total = sum(len(o.dataset) for o in opened)
        self._encoder = build_encoder(data, stage, model_config, tokenizer, ledger, total, data.samples_per_pack, jitter=0.0)
        # read without a torch loader: its forced garbage collections would cost more than the reading
        self._readers = [
            SimpleSavableDatasetWrapper(self._encoder.build_planned(o, self._config), self._config, NoCachePool()) for o in opened
        ]
        self._batches: Iterator[PackedMicroBatch] | None = None

    def __iter__(self) -> Iterator[PackedMicroBatch]:
        """Start over."""
        self._batches = self._own_packs()
        return self

    def __next__(self) -> PackedMicroBatch:
        if self._batches is None:
            self._batches = self._own_packs()
        with explained(self.ledger):
            return next(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a validation pass starts over."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Let go of the files."""
        self._batches = None
        for source in self._sources:
            source.close()

    def _own_packs(self) -> Iterator[PackedMicroBatch]:
        self._encoder.begin_pass()
        number = 0
        for number, pack in enumerate(self._all_packs(), start=1):
            if (number - 1) % self._world_size == self._rank:
                yield self._encoder.pack_held_out(pack)
        if 0 < number % self._world_size <= self._rank:
            yield self._encoder.pack_held_out([])  # padding, so that all ranks get equally many

    def _all_packs(self) -> Iterator[list[PlannedSample]]:
        turns = [self._packs(reader) for reader in self._readers]
        while turns:
            for stream in list(turns):
                pack = next(stream, None)
                if pack is None:
                    turns.remove(stream)
                else:
                    yield pack

    def _packs(self, reader: Any) -> Iterator[list[PlannedSample]]:
        waiting: list[PlannedSample] = []
        for _, _, sample in reader:
            if len(waiting) == self._buffer:
                yield from self._encoder.select_samples_to_pack(waiting)
                waiting = []
            waiting.append(sample)
        yield from self._encoder.select_samples_to_pack(waiting)
