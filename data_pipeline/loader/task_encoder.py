"""Energon's task encoder: raw member -> planned sample -> pack -> micro-batch.

Buffers hold undecoded media only: after a restart they are read again, which must stay cheap.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

import torch
from megatron.energon import Cooker, CrudeSample, SkipSample, WorkerConfig, stateless
from megatron.energon import Sample as EnergonSample
from megatron.energon.edataclass import edataclass
from megatron.energon.errors import FatalSampleError, reraise_exception
from megatron.energon.flavors import SavableDataset
from megatron.energon.metadataset.loader_interface import LoadedDataset
from megatron.energon.task_encoder.cooking import basic_sample_keys
from megatron.energon.wrappers import MapDataset, PackingDataset

from data_pipeline.loader.blended import BlendedTaskEncoder
from data_pipeline.loader.frames import decode_slots
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.ledger_lines import BAD, DECODE, PLAN, READ, SKIPPED
from data_pipeline.loader.now_reading import busy_with
from data_pipeline.loader.unreadable import UNREADABLE, guard_reading
from data_pipeline.media.backend import Decoding
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.packing.build import PackedSample, build_micro_batch
from data_pipeline.packing.plan import DoesNotFit, PlanRules, SamplePlan, plan_sample
from data_pipeline.packing.select import select_packs
from data_pipeline.schema import Sample
from data_pipeline.shards.schema import sample_from_dict
from data_pipeline.storage.errors import StorageError
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError

_F = TypeVar("_F", bound=Callable[..., Any])


def _stateless(function: _F) -> _F:
    """Energon's mark for a function whose results may be made again after a restart."""
    return cast(_F, stateless(function))


@edataclass
class RawSample(EnergonSample):
    """A sample as stored."""

    sample: Sample
    members: dict[str, bytes]
    """Content of each media file."""
    shard: str


@edataclass
class PlannedSample(EnergonSample):
    """A sample with its rows; media are still undecoded."""

    raw: RawSample
    plan: SamplePlan


@edataclass
class LeftOutSample(EnergonSample):
    """Keeps the place in a restored buffer of a sample that was usable when the buffer was saved and is left out by now."""


@dataclass
class UndecodedPack:
    """A pack in whose place a reader was only moved on."""

    sample_keys: list[str]
    """`dataset/key` of each sample."""


class _LeavingOut(MapDataset):
    """Energon's map, but a buffered sample that is left out by now does not end a resumed run."""

    def restore_sample(self, restore_key: tuple[Any, ...]) -> Any:
        try:
            return super().restore_sample(restore_key)
        except ValueError as error:  # Energon's, as nothing may be missing in a buffer
            if not isinstance(error.__cause__, SkipSample):
                raise
            return LeftOutSample(__key__="", __restore_key__=restore_key)


class _QuietPacking(PackingDataset):
    """Energon's packing without its progress bar on the standard error stream."""

    def _fill_reading_buffer(self, source_iter: Iterator[Any], log_progress: bool = False) -> bool:
        return bool(super()._fill_reading_buffer(source_iter, False))


class MossTaskEncoder(BlendedTaskEncoder):
    """What happens to a sample between its shard and the training step."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        rules: PlanRules,
        ledger: Ledger,
        *,
        image_size: int,
        grid_size: int,
        samples_per_pack: int | None,
        seed: int,
        total_samples: int,
        decoding: Decoding | None = None,
    ) -> None:
        """
        Args:
            total_samples: samples in all datasets; as many left out in a row mean that none fits.
            decoding: how videos are decoded.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.rules = rules
        self.ledger = ledger
        self.image_size = image_size
        self.grid_size = grid_size
        self.samples_per_pack = samples_per_pack
        self.seed = seed
        self.total_samples = total_samples
        self.decoding = decoding
        self.decodes = True
        """False makes packs of keys only: a reader moves on at the cost of reading and planning."""
        self._left_out_in_a_row: Counter[tuple[str, str]] = Counter()
        self.cookers = [Cooker(self._cook)]

    @_stateless
    def _cook(self, crude: CrudeSample) -> RawSample:
        """Parse the json; keep the media as bytes."""
        key, shard, name = crude["__key__"], _shard(crude), crude["__subflavors__"]["name"]
        with self._at(READ, name, shard, key):
            if UNREADABLE in crude:
                raise InputError(crude[UNREADABLE])
            if "json" not in crude:
                raise InputError(f"{shard} sample {key} has no json member; write shards with `moss data prepare`")
            sample = sample_from_dict(json.loads(crude["json"]), f"{shard} sample {key}")
            missing = [m.file for m in sample.media if m.file not in crude]
            if missing:
                raise InputError(f"{shard} sample {key} lacks the media {', '.join(missing)}")
            members = {m.file: crude[m.file] for m in sample.media}
        return RawSample(**basic_sample_keys(crude), sample=sample, members=members, shard=shard)

    @_stateless
    def preencode_sample(self, sample: RawSample | LeftOutSample) -> PlannedSample:
        """Tokens, labels and the list of wanted frames; nothing is decoded."""
        if isinstance(sample, LeftOutSample):
            raise SkipSample
        name, key = sample.__subflavors__["name"], sample.__key__
        with self._at(PLAN, name, sample.shard, key):
            plan = plan_sample(sample.sample, self.tokenizer, self.rules, self._rng(name, key), f"{sample.shard} sample {key}")
            if plan.dense is not None and plan.dense.shape[1] != self.grid_size:
                raise InputError(
                    f"{sample.shard} sample {key} has a dense grid of {plan.dense.shape[1]} but the model's is {self.grid_size}"
                )
        return PlannedSample(
            __key__=sample.__key__,
            __restore_key__=sample.__restore_key__,
            __subflavors__=sample.__subflavors__,
            __sources__=sample.__sources__,
            raw=sample,
            plan=plan,
        )

    def select_samples_to_pack(self, samples: list[PlannedSample | LeftOutSample]) -> list[list[PlannedSample]]:
        """Groups of samples within the bounds on rows, frames and samples."""
        samples = [s for s in samples if isinstance(s, PlannedSample)]
        sizes = [(s.plan.num_rows, s.plan.num_frames) for s in samples]
        packs = select_packs(sizes, self.rules.sequence_length, self.rules.max_frames, self.samples_per_pack)
        return [[samples[i] for i in pack] for pack in packs]

    @_stateless
    def pack_selected_samples(self, samples: list[PlannedSample | LeftOutSample]) -> PackedMicroBatch | UndecodedPack:
        """Decode the frames of a pack and lay it out; samples that cannot be decoded are left out."""
        if not self.decodes:
            return self._undecoded(samples)
        batch = self.pack_held_out(samples)
        if not any(batch.sample_keys):
            raise SkipSample
        return batch

    def pack_held_out(self, samples: Sequence[PlannedSample | LeftOutSample]) -> PackedMicroBatch:
        """The same, but a pack of which nothing can be decoded becomes padding, so that packs keep their number."""
        decoded = [self._decode(s) for s in samples if isinstance(s, PlannedSample)]
        packed = [p for p in decoded if p is not None]
        return build_micro_batch(packed, self.rules.sequence_length, self.tokenizer.pad_id, self.image_size)

    def _undecoded(self, samples: Sequence[PlannedSample | LeftOutSample]) -> UndecodedPack:
        """The pack's keys; what cannot be decoded is known from the ledger's list alone."""
        keys = []
        for sample in samples:
            if isinstance(sample, PlannedSample):
                name, key = sample.__subflavors__["name"], sample.__key__
                if not self.ledger.skip.names(name, sample.raw.shard, key, DECODE):
                    keys.append(f"{name}/{key}")
        if not keys:
            raise SkipSample
        return UndecodedPack(keys)

    def begin_pass(self) -> None:
        """Finite data begin again: what was left out in a row before is no sign that reading leads nowhere."""
        self._left_out_in_a_row.clear()

    def build_planned(self, dataset: LoadedDataset, worker_config: WorkerConfig) -> SavableDataset[Any]:
        """One pass over a dataset as planned samples in stored order."""
        return self.build_encode_sample(self._load_dataset(dataset, 0, worker_config), worker_config=worker_config)

    def build_cook_crude_sample(
        self, dataset: SavableDataset[Any], *, worker_config: WorkerConfig, **_: Any
    ) -> SavableDataset[Any]:
        """Samples of one dataset, parsed; damaged shards give what is whole in them."""
        guard_reading(dataset)
        cook = partial(self.cook_crude_sample, cooker=self.cookers[0], aux={})
        return _LeavingOut(dataset, cook, stateless_map_fn=True, worker_config=_strict(worker_config))

    def build_encode_sample(self, dataset: SavableDataset[Any], *, worker_config: WorkerConfig) -> SavableDataset[Any]:
        """The samples, planned."""
        return _LeavingOut(dataset, self.preencode_sample, stateless_map_fn=True, worker_config=_strict(worker_config))

    def build_batch(
        self,
        dataset: SavableDataset[Any],
        *,
        batch_size: int | None,
        batch_drop_last: bool = False,
        packing_buffer_size: int | None = None,
        worker_config: WorkerConfig,
    ) -> SavableDataset[Any]:
        """A pack is a micro-batch: packing is the last stage."""
        del batch_size, batch_drop_last
        return _QuietPacking(
            dataset,
            buffer_size=packing_buffer_size or 1,
            pre_packer=self.select_samples_to_pack,
            final_packer=self.pack_selected_samples,
            final_packer_stateless=True,
            pre_packer_failure_tolerance=0,
            worker_config=worker_config,
        )

    def _decode(self, sample: PlannedSample) -> PackedSample | None:
        name, shard, key = sample.__subflavors__["name"], sample.raw.shard, sample.__key__
        frames = torch.empty(0, 3, self.image_size, self.image_size, dtype=torch.uint8)
        try:
            with self._at(DECODE, name, shard, key):
                if sample.plan.slots:
                    media, members = sample.raw.sample.media, sample.raw.members
                    frames = decode_slots(sample.plan.slots, media, members, self.image_size, f"{shard} {key}", self.decoding)
        except SkipSample:  # the others of its pack stay
            return None
        return PackedSample(f"{name}/{key}", sample.__subflavors__["index"], sample.plan, frames)

    def _rng(self, name: str, key: str) -> random.Random:
        """Differs from epoch to epoch, and is the same for any number of ranks that share out the same workers."""
        config = WorkerConfig.active_worker_config
        per_worker = (config.active_worker_sample_index - config.rank_worker_id()) // max(config.num_workers, 1)
        return random.Random(f"{self.seed}/{name}/{key}/{per_worker}")

    @contextmanager
    def _at(self, point: str, name: str, shard: str, key: str) -> Iterator[None]:
        """Work on a sample: whatever fails, it is that sample's fault, and it is entered in the ledger and left out.

        Raises:
            SkipSample: it is left out.
            FatalSampleError: the ledger ends reading.
            StorageError: its media cannot be reached, which is no fault of the sample.
        """
        if self.ledger.skip.names(name, shard, key, point):
            self._left_out(point, name, f"{name}/{key} is in data.skip_samples")
        try:
            with busy_with(name, shard, key, point):
                yield
        except (FatalSampleError, StorageError):
            raise
        except Exception as error:
            reason = f"{error}" or type(error).__name__
            self.ledger.add(name, shard, key, reason, SKIPPED if isinstance(error, DoesNotFit) else BAD, point)
            self._left_out(point, name, f"{name}/{key}: {reason}")
        self._left_out_in_a_row[point, name] = 0

    def _left_out(self, point: str, name: str, latest: str) -> NoReturn:
        self._left_out_in_a_row[point, name] += 1
        if self._left_out_in_a_row[point, name] > self.total_samples + 100:  # Energon would look for a good one forever
            self.ledger.stop(f"dataset {name}: no sample of the data can be used; the latest is {latest}")
        raise SkipSample


def _strict(worker_config: WorkerConfig) -> WorkerConfig:
    """What fails outside a sample ends reading: Energon's own handler would print it and go on without the data."""
    worker_config.global_error_handler = reraise_exception
    return worker_config


def _shard(crude: CrudeSample) -> str:
    sources = crude.get("__sources__") or ()
    return str(sources[0].shard_name) if sources else "?"
