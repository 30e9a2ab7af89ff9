"""Packed micro-batches of given rows and frames that look like a stage's: several samples, who sees which frame, what is learned.

Kinds, frames and text of the samples follow the published workload (`moss_train.planning.workload`), cut and filled up so that a
pack holds exactly the rows and frames that are asked for; where the frames are used up, text follows. Images and videos stand
in front of their text, whose rows see all of them; in real-time dialogues the frames stand between the words, at equal
distances, and a row sees those before it. Pretraining learns every text row; in conversations the user's turn is not learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.planning.workload import STAGES, TEXT_TOKENS, draw_samples

ASKED = {"pt1": 0.0, "pt2": 0.0, "sft_offline": 0.25, "sft_realtime": 0.125}
"""Share of a sample's text that the user says. Assumed: nothing is published of it."""
LEAST_TEXT = TEXT_TOKENS[0]
PIXEL_POOL = 16
"""Different frames in a pack; further ones repeat them, which no kernel's time depends on."""


class PackSample(NamedTuple):
    """One sample of a pack."""

    kind: str
    """text | image | video | stream"""
    rows: int
    """Frames included."""
    frames: int


def stage_samples(stage: str, rows: int, frames: int, seed: int = 0) -> list[PackSample]:
    """Samples of a stage that together have exactly these rows and frames.

    Args:
        stage: pt1 | pt2 | sft_offline | sft_realtime.
        rows: of the pack, at least two a frame and 8.
        frames: of the pack; with 0 every sample is text.

    Raises:
        InputError: an unknown stage, or too few rows.
    """
    if stage not in STAGES:
        raise InputError(f"the stage is {stage!r}; use one of {', '.join(STAGES)}")
    if rows < 8 or rows < 2 * frames:
        raise InputError(f"{rows} rows do not hold {frames} frames and their text; use at least {max(8, 2 * frames)} rows")
    samples: list[PackSample] = []
    for drawn in draw_samples(stage, seed):
        taken = min(drawn.frames, max(STAGES[stage].min_frames, -(-frames // 3)), frames)  # leaves frames to others
        size = drawn.tokens + taken
        left_rows, left_frames = rows - size, frames - taken
        if left_rows < max(LEAST_TEXT, 2 * left_frames):
            return [*samples, PackSample(_kind(stage, frames), rows, frames)]
        samples.append(PackSample(_kind(stage, taken), size, taken))
        rows, frames = left_rows, left_frames
    raise AssertionError("the workload ended")


def _kind(stage: str, frames: int) -> str:
    if frames < 2:
        return "image" if frames else "text"
    return "stream" if stage == "sft_realtime" else "video"


def stage_pack(
    config: VideoMllamaConfig, stage: str, rows: int, frames: int, seed: int = 0, pixels: bool = True
) -> PackedMicroBatch:
    """A pack of random tokens and pixels with the samples of `stage_samples`.

    Args:
        pixels: False leaves them out: what the pack asks of the model can still be counted.

    Raises:
        InputError: as `stage_samples`.
    """
    return pack_of(config, stage_samples(stage, rows, frames, seed), ASKED[stage], seed, pixels)


def pack_of(
    config: VideoMllamaConfig, samples: Sequence[PackSample], asked: float = 0.0, seed: int = 0, pixels: bool = True
) -> PackedMicroBatch:
    """A pack of random tokens and pixels.

    Args:
        samples: in their order.
        asked: share of each sample's text, its first rows, that is not learned.
        pixels: False leaves them out.
    """
    generator = torch.Generator().manual_seed(seed)
    fields: dict[str, list[Tensor]] = {name: [] for name in ("ids", "targets", "positions", "begin", "end", "at")}
    lengths, totals = [0], [0]
    for sample in samples:
        marker = _markers(sample, asked)  # bool [rows]
        words = torch.randint(0, config.text.vocab_size, (sample.rows,), generator=generator)
        tokens = torch.where(marker, config.image_token_id, words)
        learned = ~marker & ((~marker).cumsum(0) > max(1, int(asked * (sample.rows - sample.frames))))
        targets = torch.full((sample.rows,), IGNORE_INDEX)
        targets[:-1] = torch.where(learned[1:], tokens[1:], IGNORE_INDEX)
        fields["ids"].append(tokens)
        fields["targets"].append(targets)
        fields["positions"].append(torch.arange(sample.rows))
        fields["begin"].append(torch.full((sample.rows,), totals[-1]))
        fields["end"].append(totals[-1] + marker.long().cumsum(0))
        fields["at"].append(marker.nonzero().flatten())
        lengths.append(lengths[-1] + sample.rows)
        totals.append(totals[-1] + sample.frames)
    joined = {name: torch.cat(parts) for name, parts in fields.items()}
    return PackedMicroBatch(
        input_ids=joined["ids"], targets=joined["targets"], position_ids=joined["positions"],
        cu_seqlens=torch.tensor(lengths, dtype=torch.int32), cu_frames=torch.tensor(totals, dtype=torch.int32),
        frame_begin=joined["begin"].int(), frame_end=joined["end"].int(), frame_positions=joined["at"],
        frames=_pixels(config.vision.image_size if pixels else 0, totals[-1], generator),
        aspect_ratio_ids=torch.ones(totals[-1], dtype=torch.int64),
        token_class=(joined["targets"] >= 0).to(torch.int8),
        sample_keys=[f"synthetic/{i}" for i in range(len(samples))], dataset_index=[0] * len(samples),
    )  # fmt: skip


def _markers(sample: PackSample, asked: float) -> Tensor:
    """Which rows are frames, bool [rows]: behind the first row, or of a stream at equal distances behind the question."""
    marker = torch.zeros(sample.rows, dtype=torch.bool)
    if sample.frames:
        first = 1
        step = 1
        if sample.kind == "stream":
            first = min(max(1, int(asked * (sample.rows - sample.frames))), sample.rows - sample.frames)
            step = max((sample.rows - first) // sample.frames, 1)
        marker[first + step * torch.arange(sample.frames)] = True
    return marker


def _pixels(size: int, frames: int, generator: torch.Generator) -> Tensor:
    """Random uint8 [frames, 3, size, size]."""
    pool = torch.randint(0, 256, (min(frames, PIXEL_POOL), 3, size, size), generator=generator, dtype=torch.uint8)
    return pool[torch.arange(frames) % PIXEL_POOL] if frames else pool
