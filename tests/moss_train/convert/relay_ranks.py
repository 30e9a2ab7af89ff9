"""One rank: loads a checkpoint into a layout and saves it again from there. `SOURCE_RUN TARGET_RUN TENSOR PIPELINE`."""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import sys
from pathlib import Path

from moss_train import platform

platform.install()

import torch

from model.video_mllama import build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from moss_train.checkpoint.description import find_checkpoint, read_description
from moss_train.checkpoint.load import load_model_weights
from moss_train.checkpoint.save import save_model_only
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world


def main(source: Path, target: Path, tensor: int, pipeline: int) -> None:
    """Weights pass through live modules, which pad and shard them as training does."""
    device = torch.device("cpu")
    start_world(device)
    start_layout(ParallelConfig(tensor=tensor, pipeline=pipeline), device, seed=1)
    config = read_description(find_checkpoint(source)).config
    chunks = build_decoder_chunks(config, make_transformer_config(config, tensor=tensor, pipeline=pipeline, dtype="bf16"))
    vision = VisionEncoder(config).bfloat16()
    load_model_weights(source, chunks, vision)
    save_model_only(target, chunks, vision, config)
    stop_layout()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
