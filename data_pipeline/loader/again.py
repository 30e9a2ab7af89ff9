"""Any micro-batches of a run once more, in this process, at the cost of decoding those alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.loader.blend import blend
from data_pipeline.loader.config import DataSettings, StageSettings
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.ledger_lines import BAD
from data_pipeline.loader.readers import Reader, ReaderParts
from data_pipeline.loader.skip_list import SkipList
from data_pipeline.loader.state import check_identity, check_whole, identity_of
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError


class DataAgain:
    """Micro-batches by their number in the run, whatever ranks and processes read them first.

    Micro-batch n is number n // G of reader n mod G, for G = `data.global_data_workers`. A reader before it is only moved
    on: its samples are read and planned, their media stay undecoded. Which of those could not be decoded, and so left their
    packs, is known from the run's ledger.

    Args:
        data, stage, model_config, tokenizer: of the run.
        left_out: entries of the run's quarantine ledger.
        ledger: where new entries go; its content is not looked at.
        state: merged state of all readers at some step; None is the beginning of the data.

    Raises:
        InputError: a folder is missing, or the state belongs to data that were read in another way.
    """

    def __init__(
        self, data: DataSettings, stage: StageSettings, model_config: VideoMllamaConfig, tokenizer: Tokenizer, *,
        left_out: Sequence[Mapping[str, Any]], ledger: Path, state: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        skip = SkipList([dict(entry) for entry in left_out if entry["kind"] == BAD])
        if data.skip_samples is not None:
            skip = skip.joined(SkipList.read(data.skip_samples))
        # What the run left out is no news; a laptop that lacks a decoder meets its limit as a run would.
        budgets = {d.name: d.max_bad_samples for d in data.datasets if d.max_bad_samples is not None}
        book = Ledger(ledger, data.max_bad_samples, budgets, skip)
        sources = blend(data.datasets, data.mixture, data.root, "data.datasets", data.storage)
        self._parts = ReaderParts(data, stage, model_config, tokenizer, book, sources)
        self._of = data.global_data_workers
        self._begun_at = 0
        self._states: Mapping[int, bytes | None] = {}
        if state is not None:
            check_whole(state)
            check_identity(state, identity_of(data, stage, model_config, tokenizer, sources))
            self._begun_at, self._states = state["micro_batches"], state["readers"]
        self._readers: dict[int, Reader] = {}
        self._given: dict[int, int] = {}

    @property
    def begun_at(self) -> int:
        """Micro-batches of the run before this place."""
        return self._begun_at

    def take(self, number: int, on_passed: Callable[[], None] | None = None) -> PackedMicroBatch:
        """Micro-batch `number` of the run, from 0; of each reader in growing order.

        Args:
            on_passed: called for every micro-batch that is passed over.

        Raises:
            InputError: the data end before it, or cannot be read.
        """
        which, place = number % self._of, number // self._of
        try:
            reader = self._reader(which)
            if self._given[which] > place:
                raise ValueError(f"micro-batch {number} lies behind reader {which}")
            while self._given[which] < place:
                reader.pass_over()
                self._given[which] += 1
                if on_passed is not None:
                    on_passed()
            batch = next(reader)
        except StopIteration:
            raise InputError(
                f"the data end before micro-batch {number}: reader {which} of {self._of} gives {self._given[which]}; "
                "choose an earlier step"
            ) from None
        self._given[which] += 1
        return batch

    def _reader(self, which: int) -> Reader:
        if which not in self._readers:
            self._readers[which] = self._parts.open(which, self._states.get(which))
            self._given[which] = -(-(self._begun_at - which) // self._of) if self._begun_at > which else 0
        return self._readers[which]
