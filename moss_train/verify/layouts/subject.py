"""What is trained in the check: a tiny model, weights that depend on nothing but names, hand-made packed micro-batches."""

from __future__ import annotations

import dataclasses
from functools import cache

import torch

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.config import SwitchConfig, TextConfig, VideoMllamaConfig, VisionConfig
from model.conversion.table import hf_shapes

SILENCE = 5
DATASETS = ("clips", "text")
DENSE_CLASSES = 5
ROWS = 24
_FIRST_SEED = 4000
SAMPLES = [[(9, 3), (4, 0)], [(16, 0)], [(5, 7), (3, 1)], [(14, 1)]]
"""Global batch: (text tokens, frames) of the samples of each micro-batch; one has text alone."""
FRAMES = sum(frames for samples in SAMPLES for _, frames in samples)


def subject_config(wide_heads: bool = False) -> VideoMllamaConfig:
    """Six layers that tensor parallel 2, 3 and 4 divide and whose vocabulary they pad; two are cross layers.

    Split evenly over three stages, the middle one has no cross layer.

    Args:
        wide_heads: heads of 64, as fused attention kernels take them, instead of 4.
    """
    return VideoMllamaConfig(
        vision=VisionConfig(
            hidden_size=16,
            num_attention_heads=2,
            num_hidden_layers=2,
            num_global_layers=1,
            intermediate_size=32,
            image_size=16,
            patch_size=4,
            intermediate_layers_indices=(0, 1),
            pool_stride=2,
        ),
        text=TextConfig(
            vocab_size=70,
            hidden_size=1536 if wide_heads else 96,
            num_hidden_layers=6,
            cross_attention_layers=(1, 4),
            num_attention_heads=24,
            num_key_value_heads=12,
            intermediate_size=96,
        ),
        switches=SwitchConfig(no_visible_rows="skip"),
    )


def run_subject_config() -> VideoMllamaConfig:
    """As `subject_config`, with the published model's widths of heads, which fused kernels take: 128 in the decoder, 80 in the
    tower. Tensor parallel 2 and 4 divide it, 3 does not."""
    small = subject_config()
    return VideoMllamaConfig(
        vision=dataclasses.replace(small.vision, hidden_size=320, num_attention_heads=4, intermediate_size=640),
        text=dataclasses.replace(
            small.text, hidden_size=1024, num_attention_heads=8, num_key_value_heads=4, intermediate_size=256
        ),
        switches=small.switches,
    )


@cache  # by every trial of a process
def subject_weights(config: VideoMllamaConfig) -> dict[str, torch.Tensor]:
    """Whole tensors by published name in which nothing is neutral, well conditioned.

    Layers add little to a residual stream of size 1, and the first seed is one at which the sums behind the gates'
    gradients do not cancel. A layout may round otherwise than one rank in every product; here that stays at rounding's
    own size, so that the tolerances leave a margin above it and none for a mistake. Always the same tensors, to be read only.
    """
    weights = {}
    for i, (name, shape) in enumerate(sorted(hf_shapes(config).items())):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(_FIRST_SEED + i))
        if name.endswith("embed_tokens.weight"):
            weights[name] = values
        elif len(shape) > 1:
            weights[name] = 0.05 * values
        else:  # norms around 1, gates around 0.5, biases around 0
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.5 if "gate" in name else 0.0
            weights[name] = centre + 0.15 * values
    return weights


def global_batch(config: VideoMllamaConfig, step: int) -> list[PackedMicroBatch]:
    """The same micro-batches whoever asks."""
    return [make_pack(config, 10 * step + i, samples, ROWS, DENSE_CLASSES) for i, samples in enumerate(SAMPLES)]


def make_pack(
    config: VideoMllamaConfig, seed: int, samples: list[tuple[int, int]], rows: int, dense_classes: int | None = None
) -> PackedMicroBatch:
    """A micro-batch of `rows` rows.

    Args:
        samples: (text tokens, frames) of each sample; frames stand before and between its text tokens.
        rows: length after padding with a sample of its own.
        dense_classes: also make dense labels of so many classes.
    """
    g = torch.Generator().manual_seed(seed)
    vocab, size = config.text.vocab_size, config.vision.image_size
    ids, targets, positions, begins, ends, frame_positions = [], [], [], [], [], []
    lengths, frames = [0], [0]
    for tokens, count in samples:
        order = torch.tensor([True] * count + [False] * tokens)
        if count and tokens > 1:  # the first frame leads, the others fall anywhere
            order = torch.cat([order[:1], order[1:][torch.randperm(len(order) - 1, generator=g)]])
        sample = torch.where(order, config.image_token_id, torch.randint(0, vocab, (len(order),), generator=g))
        target = torch.full_like(sample, IGNORE_INDEX)
        target[:-1] = torch.where(order[1:], IGNORE_INDEX, sample[1:])
        target[torch.rand(len(order), generator=g) < 0.3] = IGNORE_INDEX
        seen = frames[-1] + order.long().cumsum(0)
        ids.append(sample)
        targets.append(target)
        positions.append(torch.arange(len(order)))
        frame_positions.append(torch.nonzero(order).flatten())
        begins.append(torch.full_like(sample, frames[-1]))
        ends.append(seen)
        lengths.append(lengths[-1] + len(order))
        frames.append(frames[-1] + count)
    pad = rows - lengths[-1]
    if pad:
        ids.append(torch.zeros(pad, dtype=torch.int64))
        targets.append(torch.full((pad,), IGNORE_INDEX))
        positions.append(torch.arange(pad))
        begins.append(torch.full((pad,), frames[-1]))
        ends.append(torch.full((pad,), frames[-1]))
        lengths.append(rows)
        frames.append(frames[-1])
    target = torch.cat(targets)
    token_class = torch.where(target == IGNORE_INDEX, 0, torch.where(target == SILENCE, 2, 1)).to(torch.int8)
    total, grid = frames[-1], config.vision.grid_size
    return PackedMicroBatch(
        input_ids=torch.cat(ids),
        targets=target,
        position_ids=torch.cat(positions),
        cu_seqlens=torch.tensor(lengths, dtype=torch.int32),
        cu_frames=torch.tensor(frames, dtype=torch.int32),
        frame_begin=torch.cat(begins).int(),
        frame_end=torch.cat(ends).int(),
        frame_positions=torch.cat(frame_positions).long(),
        frames=torch.randint(0, 256, (total, 3, size, size), generator=g, dtype=torch.uint8),
        aspect_ratio_ids=torch.ones(total, dtype=torch.int64),
        token_class=token_class,
        sample_keys=[f"s/{i}" for i in range(len(samples))] + [""] * bool(pad),
        dataset_index=[0 if count else 1 for _, count in samples] + [-1] * bool(pad),
        dense_labels=None if dense_classes is None else torch.randint(0, dense_classes, (total, grid, grid), generator=g),
    )
