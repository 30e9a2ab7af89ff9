"""A world of one rank for tests that build the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion import load_hf_weights
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world

BuildDecoder = Callable[[VideoMllamaConfig, Mapping[str, Tensor]], VideoMllamaDecoder]


@pytest.fixture(scope="module")
def solo() -> Iterator[None]:
    """torch.distributed and megatron-core's groups with one rank."""
    device = torch.device("cpu")
    start_world(device)
    start_layout(ParallelConfig(), device, seed=1)
    yield
    stop_layout()
    stop_world()


@pytest.fixture
def build_decoder(solo: None) -> BuildDecoder:
    """config, published weights -> the loaded decoder."""

    def build(config: VideoMllamaConfig, weights: Mapping[str, Tensor]) -> VideoMllamaDecoder:
        (chunk,) = build_decoder_chunks(config, make_transformer_config(config))
        load_hf_weights([chunk], None, {n: t for n, t in weights.items() if n.startswith("language_model.")})
        return chunk

    return build
