"""Level 2: shards to micro-batches in one process, text included."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_pipeline.loader import Loader
from moss_train.bench.data import reference_way
from moss_train.bench.data.clips import Clips
from moss_train.bench.data.decoder_level import REFERENCE, every_frame, take_clips
from moss_train.bench.data.meter import Pass, Row, Say, in_turns, rows, timed
from moss_train.bench.data.setups import loader_of
from moss_train.config.schema import DecodeConfig


def measure(clips: Clips, size: int, repeats: int, say: Say) -> list[Row]:
    """Passes over all samples, as ratios to the reference's way."""
    count, indices = clips.settings.count, clips.settings.indices
    loaders = {
        "ours": loader_of({"video": clips.shards}, size),
        "ours, skip_non_reference": loader_of({"video": clips.shards}, size, DecodeConfig(skip_non_reference=True)),
        "ours on transcoded shards": loader_of({"video": clips.transcoded_shards}, size),
    }
    ways: dict[str, Callable[[], Pass]] = {
        REFERENCE: partial(_pass, _Reference(clips.originals, indices, size)),
        "plain webdataset, every frame by PyAV": partial(_pass, _PlainWebDataset(clips.shards, indices, size)),
        "Energon with its AVDecoder": partial(_pass, _Energon(clips.shards, indices, size)),
        **{name: partial(_batches, loader, count) for name, loader in loaders.items()},
    }
    try:
        return rows(in_turns(ways, repeats, say), REFERENCE)
    finally:
        for loader in loaders.values():
            loader.close()


def _batches(loader: Loader, count: int) -> Pass:
    def steps(done: Callable[[int, int], None]) -> None:
        for _ in range(count):
            batch = next(loader)
            done(sum(key != "" for key in batch.sample_keys), batch.num_frames)

    return timed(steps)


def _pass(samples: Iterable[torch.Tensor]) -> Pass:
    def steps(done: Callable[[int, int], None]) -> None:
        for frames in samples:
            done(1, len(frames))

    return timed(steps)


class _Reference(torch.utils.data.Dataset[torch.Tensor]):
    """A torch loader over files whose collator decodes, as there."""

    def __init__(self, paths: Sequence[Path], indices: Sequence[int], size: int) -> None:
        self.paths, self.indices, self.size = paths, indices, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Any:
        return self.paths[place]

    def __iter__(self) -> Any:
        return iter(torch.utils.data.DataLoader(self, batch_size=1, collate_fn=self._collate))

    def _collate(self, paths: list[Path]) -> torch.Tensor:
        return reference_way.load(paths[0], self.indices, self.size)


class _PlainWebDataset:
    """webdataset's reader; every frame decoded by PyAV, the wanted ones resized by torch."""

    def __init__(self, folder: Path, indices: Sequence[int], size: int) -> None:
        self.shards = [str(path) for path in sorted(folder.glob("*.tar"))]
        self.indices, self.size = indices, size

    def __iter__(self) -> Any:
        import webdataset

        for sample in webdataset.WebDataset(self.shards, shardshuffle=False):
            json.loads(sample["json"])
            yield every_frame(sample["0.mp4"], self.indices, self.size)


class _Energon:
    """Energon's own loader, cooker and video decoder."""

    def __init__(self, folder: Path, indices: Sequence[int], size: int) -> None:
        from megatron.energon import Cooker, DefaultTaskEncoder, WorkerConfig, get_loader, get_val_dataset, stateless
        from megatron.energon.task_encoder.cooking import basic_sample_keys

        @stateless  # type: ignore[untyped-decorator]
        def cook(crude: dict[str, Any]) -> dict[str, Any]:
            return {**basic_sample_keys(crude), "frames": take_clips(crude["0.mp4"], indices, size)}

        class Encoder(DefaultTaskEncoder):
            cookers = (Cooker(cook),)

        config = WorkerConfig(rank=0, world_size=1, num_workers=0)
        dataset = get_val_dataset(str(folder), split_part="train", worker_config=config, batch_size=1, task_encoder=Encoder())
        self.loader = get_loader(dataset)

    def __iter__(self) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")  # torch's note where there is no accelerator
            batches = iter(self.loader)
        for batch in batches:
            yield batch["frames"][0]
