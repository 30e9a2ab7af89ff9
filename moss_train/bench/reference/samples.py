"""The samples of both sides: one of a given size, and the published workload's, alone or packed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from data_pipeline.packing.select import select_packs
from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.packs import PackSample, pack_of
from moss_train.planning.workload import STAGES, draw_samples

PACKS = 2
"""Of a stage, where the number of its samples is not given."""
PADDED_TO = 8
"""Rows that a batch of the reference is padded to a multiple of."""


def one_sample(config: VideoMllamaConfig, rows: int, frames: int, seed: int = 0, pixels: bool = True) -> PackedMicroBatch:
    """A video in front of its text, or text alone.

    Args:
        rows: frames included.

    Raises:
        InputError: too few rows for the frames and a word behind them.
    """
    if rows < frames + 2:
        raise InputError(f"{rows} rows do not hold {frames} frames and their text; use at least {frames + 2}")
    return pack_of(config, [PackSample(_kind(frames), rows, frames)], seed=seed, pixels=pixels)


def _kind(frames: int) -> str:
    return "text" if frames == 0 else "image" if frames == 1 else "video"


def mixture_samples(stage: str, count: int | None = None, seed: int = 0) -> list[PackSample]:
    """The first samples of a stage in the published workload (`moss_train.planning.workload`), always the same.

    Args:
        count: how many; None takes as many as fill `PACKS` of the stage's packs: with fewer, padding would be part of our time.
    """
    load, found = STAGES[stage], list[PackSample]()
    for drawn in draw_samples(stage, seed):
        if len(found) == count:
            return found
        found.append(PackSample(drawn.kind, drawn.rows, drawn.frames))
        sizes = [(sample.rows, sample.frames) for sample in found]
        if count is None and len(select_packs(sizes, load.sequence_length, load.max_frames_per_pack)) > PACKS:
            return found[:-1]
    raise AssertionError("the workload ended")


def alone(config: VideoMllamaConfig, samples: Sequence[PackSample], seed: int = 0) -> list[PackedMicroBatch]:
    """Each sample by itself, its rows filled up to a multiple of `PADDED_TO` with rows that nothing is learned from."""
    made = []
    for place, sample in enumerate(samples):
        filled = sample._replace(rows=-(-sample.rows // PADDED_TO) * PADDED_TO)
        batch = pack_of(config, [filled], seed=seed + place)
        batch.targets[sample.rows - 1 :] = IGNORE_INDEX
        batch.token_class[sample.rows - 1 :] = 0
        made.append(batch)
    return made


def packed(config: VideoMllamaConfig, stage: str, samples: Sequence[PackSample], seed: int = 0) -> list[PackedMicroBatch]:
    """The samples in packs that the loader's rule forms within the stage's rows and frames, padded to its rows.

    Raises:
        InputError: a sample that fits no pack.
    """
    load = STAGES[stage]
    for sample in samples:
        if sample.rows > load.sequence_length or sample.frames > load.max_frames_per_pack:
            raise InputError(
                f"a sample of {stage} has {sample.rows} rows and {sample.frames} frames, but its packs have at most "
                f"{load.sequence_length} and {load.max_frames_per_pack}"
            )
    packs = select_packs([(s.rows, s.frames) for s in samples], load.sequence_length, load.max_frames_per_pack)
    return [
        with_padding(pack_of(config, [samples[i] for i in pack], seed=seed + place), load.sequence_length)
        for place, pack in enumerate(packs)
    ]


def with_padding(batch: PackedMicroBatch, rows: int) -> PackedMicroBatch:
    """The pack with rows behind it up to a number: a sample of its own without targets and frames, as the loader pads."""
    missing = rows - batch.num_rows
    if missing == 0:
        return batch

    def longer(values: torch.Tensor, fill: int) -> torch.Tensor:
        return torch.cat([values, values.new_full((missing,), fill)])

    return dataclasses.replace(
        batch,
        input_ids=longer(batch.input_ids, 0),
        targets=longer(batch.targets, IGNORE_INDEX),
        position_ids=torch.cat([batch.position_ids, torch.arange(missing)]),
        cu_seqlens=torch.cat([batch.cu_seqlens, batch.cu_seqlens.new_tensor([rows])]),
        cu_frames=torch.cat([batch.cu_frames, batch.cu_frames[-1:]]),
        frame_begin=longer(batch.frame_begin, batch.num_frames),
        frame_end=longer(batch.frame_end, batch.num_frames),
        token_class=longer(batch.token_class, 0),
        sample_keys=[*batch.sample_keys, ""],
        dataset_index=[*batch.dataset_index, -1],
    )


def pinned(batches: Sequence[PackedMicroBatch], device: torch.device) -> list[PackedMicroBatch]:
    """With pixels in page-locked memory where they go to a GPU, as the loader gives them."""
    if device.type != "cuda":
        return list(batches)
    return [dataclasses.replace(batch, frames=batch.frames.pin_memory()) for batch in batches]
