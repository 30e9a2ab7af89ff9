"""The live model in a layout of this world, for a conversion that does not train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from model.config import VideoMllamaConfig
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device


@dataclass
class BareModel:
    """Decoder chunks and encoder of this rank, without gradient buffers or optimizer."""

    chunks: list[VideoMllamaDecoder]
    vision: VisionEncoder


@contextmanager
def bare_model(config: VideoMllamaConfig, dtype: torch.dtype, sizes: ParallelConfig) -> Iterator[BareModel]:
    """Starts the world and the layout, builds the model with unspecified weights, and ends both again.

    Raises:
        InputError: sizes that do not fit the model or the number of ranks.
    """
    device = resolve_device("auto")
    start_world(device)
    try:
        start_layout(sizes, device, seed=1)
        decoder_config = make_transformer_config(config, tensor=sizes.tensor, pipeline=sizes.pipeline, dtype=dtype)
        decoder_config.perform_initialization = False  # every parameter is about to be loaded
        chunks = build_decoder_chunks(config, decoder_config)
        yield BareModel(chunks, VisionEncoder(config).to(device=device, dtype=dtype))
    finally:
        stop_layout()
        stop_world()
