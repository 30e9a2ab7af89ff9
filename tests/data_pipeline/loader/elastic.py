"""Replicas of one run as loaders in one process, and what they read together."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from data_pipeline.loader import build_loader
from data_pipeline.loader.state import merge_states
from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.config.schema import DataConfig
from tests.data_pipeline.helpers import model_config, stage_config, tokenizer

TOKENIZER = tokenizer()
MODEL = model_config(image_size=32)


def digest(batch: PackedMicroBatch) -> str:
    """Of the keys and every tensor."""
    sha = hashlib.sha256(repr((batch.sample_keys, batch.dataset_index)).encode())
    for name, value in sorted(vars(batch).items()):
        if isinstance(value, torch.Tensor):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    return sha.hexdigest()


Seen = tuple[tuple[str, ...], str]
"""Keys and digest of a micro-batch."""


class Run:
    """All replicas of a run."""

    def __init__(self, data: DataConfig, replicas: int, state: Any = None) -> None:
        stage = stage_config(realtime_jitter_prob=0.5, sequence_length=64, max_frames_per_pack=6)
        self._loaders = [build_loader(data, stage, MODEL, TOKENIZER, rank=r, world_size=replicas) for r in range(replicas)]
        if state is not None:
            for loader in self._loaders:
                loader.load_state_dict(state)

    def read(self, count: int) -> list[Seen]:
        """The next micro-batches in the order of the global batch; fewer where the data end."""
        found: list[Seen] = []
        for n in range(count):
            batch = next(self._loaders[n % len(self._loaders)], None)
            if batch is None:
                break
            found.append((tuple(key for key in batch.sample_keys if key), digest(batch)))
        return found

    def state(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        states = [pickle.loads(pickle.dumps(loader.state_dict())) for loader in self._loaders]
        return merge_states(states)

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()


@contextmanager
def run(data: DataConfig, replicas: int, state: Any = None) -> Iterator[Run]:
    """A run that is closed at the end."""
    replicas_of_run = Run(data, replicas, state)
    try:
        yield replicas_of_run
    finally:
        replicas_of_run.close()
