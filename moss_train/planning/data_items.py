"""What a plan must know of samples: rows, frames, and what reading and decoding them takes. Nothing is decoded."""

from __future__ import annotations

import json
import math
import random
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_pipeline.loader.plan_rules import plan_rules
from data_pipeline.packing.plan import DoesNotFit, PlanRules, SamplePlan, plan_sample
from data_pipeline.schema import Sample
from data_pipeline.shards.schema import sample_from_dict
from data_pipeline.storage.address import is_remote
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError
from moss_train.config.schema import DataConfig, StageConfig
from moss_train.planning.workload import STAGES, draw_samples

IMAGE_PIXELS = 1024 * 1024
IMAGE_BYTES = 200_000
TEXT_BYTES_PER_ROW = 6
BITS_PER_PIXEL = 0.08
"""Of a video's frames: 5 Mbit/s at 1920 x 1080 and 30 frames a second."""


class DataItem(NamedTuple):
    """One sample."""

    rows: int
    """Text tokens and frames."""
    frames: int
    streamed: bool
    """Whether frames come between the words (half of all pairs of rows and frames are visible), not before them."""
    decoded: int
    """Frames of its files up to the last one that is wanted: what a decoder goes through. An image is one."""
    pixels: int
    """Of one decoded frame, mean."""
    stored: int
    """Bytes in the shard."""


@dataclass(frozen=True)
class SourceVideo:
    """What the videos of the workload are taken to be."""

    width: int = 1920
    height: int = 1080
    rate: float = 30.0
    """Frames a second."""

    @classmethod
    def parse(cls, text: str) -> SourceVideo:
        """From `1920x1080@30`.

        Raises:
            InputError: another form.
        """
        try:
            size, rate = text.split("@")
            width, height = size.split("x")
            video = cls(int(width), int(height), float(rate))
        except ValueError:
            raise InputError(f"--source is {text!r}; write WIDTHxHEIGHT@RATE, such as 1920x1080@30") from None
        if min(video.width, video.height) < 1 or not 0 < video.rate < math.inf:
            raise InputError(f"--source is {text!r}; sizes and rate must be above 0")
        return video


def workload_items(stage: StageConfig, video: SourceVideo, seed: int = 0) -> Iterator[DataItem]:
    """The workload's endless stream for a stage, its videos stored as `video`.

    Raises:
        InputError: the workload has no such stage.
    """
    if stage.name not in STAGES:
        raise InputError(f"stage {stage.name} is not in the workload; use one of {', '.join(STAGES)} or leave out --workload")
    streamed = stage.name == "sft_realtime"
    for sample in draw_samples(stage.name, seed):
        text = sample.tokens * TEXT_BYTES_PER_ROW
        if sample.kind == "video":
            pixels = video.width * video.height
            decoded = max(sample.frames, math.ceil(sample.frames / stage.frames.fps * video.rate))
            stored = text + int(decoded * pixels * BITS_PER_PIXEL / 8)
            yield DataItem(sample.rows, sample.frames, streamed, decoded, pixels, stored)
        else:
            stored = text + IMAGE_BYTES * sample.frames  # a text has no frame, an image one
            yield DataItem(sample.rows, sample.frames, False, sample.frames, IMAGE_PIXELS, stored)


@dataclass
class FolderItems:
    """Samples of real folders."""

    items: list[list[DataItem]]
    """Of each dataset."""
    shares: list[float]
    """Of each dataset; they sum to 1."""
    left_out: int
    """Samples read that have no place in the stage."""

    @property
    def count(self) -> int:
        return sum(map(len, self.items))

    def stream(self, seed: int = 0) -> Iterator[DataItem]:
        """Endless, in the blend's shares; every dataset is shuffled anew for each pass over what was read of it."""
        rng = random.Random(seed)
        passes = [_shuffled(items, random.Random(f"{seed}/{i}")) for i, items in enumerate(self.items)]
        while True:
            yield next(passes[rng.choices(range(len(passes)), self.shares)[0]])


def folder_items(data: DataConfig, stage: StageConfig, tokenizer: Tokenizer, samples: int) -> FolderItems:
    """Plan up to `samples` samples of every dataset of the blend, from its shards' JSON.

    Raises:
        InputError: a folder is missing, remote, damaged, or none of its samples fits the stage.
    """
    from data_pipeline.loader.blend import blend

    check_local(data)
    rules = plan_rules(stage)
    found = FolderItems([], [], 0)
    for source in blend(data.datasets, data.mixture, data.root, "data.datasets"):
        folder = Path(data.root) / data.datasets[source.index].path
        items, left_out = _folder(folder, tokenizer, rules, samples)
        if not items:
            raise InputError(f"none of {left_out} samples of {folder} fits stage {stage.name}; `moss data lint --stage` says why")
        found.items.append(items)
        found.shares.append(source.share)
        found.left_out += left_out
    return found


def check_local(data: DataConfig) -> None:
    """A plan reads folders of this machine only.

    Raises:
        InputError: one is an address.
    """
    named = [("data.root", data.root), *((f"data.datasets[{d.name}].path", d.path) for d in data.datasets)]
    for name, path in named:
        if is_remote(path):
            raise InputError(f"{name} {path} is remote; copy some shards here to plan with them")


def _folder(folder: Path, tokenizer: Tokenizer, rules: PlanRules, samples: int) -> tuple[list[DataItem], int]:
    shards = sorted(folder.rglob("*.tar"))
    if not shards:
        raise InputError(f"{folder} holds no shards (*.tar); write some with `moss data prepare`")
    chosen = shards if len(shards) <= samples else [shards[i * len(shards) // samples] for i in range(samples)]
    each = -(-samples // len(chosen))
    items, left_out = [], 0
    for shard in chosen:
        for key, text, stored in _texts(shard, each):
            try:
                sample = sample_from_dict(json.loads(text), f"{shard.name} sample {key}")
                items.append(_item(sample, plan_sample(sample, tokenizer, rules, random.Random(0)), stored))
            except (DoesNotFit, InputError, ValueError):
                left_out += 1
    return items, left_out


def _texts(shard: Path, limit: int) -> Iterator[tuple[str, bytes, int]]:
    """(key, JSON, bytes of all members) of the first samples of a shard; media are passed over."""
    try:
        with tarfile.open(shard, "r:") as tar:
            key, text, stored, given = "", b"", 0, 0
            for member in tar:
                name = member.name.partition(".")[0]
                if name != key:
                    if text:
                        yield key, text, stored
                        given += 1
                    if given == limit:
                        return
                    key, text, stored = name, b"", 0
                stored += member.size
                if member.name.endswith(".json"):
                    content = tar.extractfile(member)
                    text = content.read() if content is not None else b""
            if text:
                yield key, text, stored
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"shard {shard} cannot be read ({error}); find what is wrong with `moss data lint`") from None


def _item(sample: Sample, plan: SamplePlan, stored: int) -> DataItem:
    decoded = pixels = 0
    for index, media in enumerate(sample.media):
        last = max((slot.frame for slot in plan.slots if slot.media == index), default=-1)
        decoded += last + 1
        pixels += (last + 1) * (media.width or 0) * (media.height or 0)
    return DataItem(plan.num_rows, plan.num_frames, sample.kind == "realtime", decoded, pixels // max(1, decoded), stored)


def _shuffled(items: Sequence[DataItem], rng: random.Random) -> Iterator[DataItem]:
    while True:
        yield from rng.sample(items, len(items))
