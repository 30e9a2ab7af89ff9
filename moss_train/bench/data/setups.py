"""Settings under which the loader is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from data_pipeline.loader import Loader, build_loader
from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from moss_train.config.compose import compose
from moss_train.config.schema import DataConfig, DatasetConfig, DecodeConfig, FrameConfig, StageConfig

TEXTS = ["what moves ? the ball number moves", "a red flag and a blue fence on the left", "assistant user system"]
PATCH_SIZE = 14


def tokenizer_of(config: VideoMllamaConfig) -> Tokenizer:
    """A small one with the entries that the model has rows for."""
    return train_demo_tokenizer(TEXTS, config.text.vocab_size)


def model_of(image_size: int) -> VideoMllamaConfig:
    """The smallest model, but for frames of `image_size` pixels."""
    small = VideoMllamaConfig.from_dict(compose(["stage=sft_offline", "model=tiny"]).model)
    return dataclasses.replace(small, vision=dataclasses.replace(small.vision, image_size=image_size, patch_size=PATCH_SIZE))


def loader_of(folders: dict[str, Path], image_size: int, decode: DecodeConfig | None = None, **values: Any) -> Loader:
    """A loader of one replica, in this process unless `values` say otherwise.

    Args:
        folders: folder of shards by modality; all have the same share.
        values: of `DataConfig` and, under `stage`, of `StageConfig`.
    """
    stage_values = {"sequence_length": 512, "max_frames_per_pack": 256, **values.pop("stage", {})}
    datasets = [DatasetConfig(name=name, path=str(path.resolve()), modality=name) for name, path in folders.items()]
    defaults: dict[str, Any] = {
        "global_data_workers": 1, "worker_processes": 0, "shuffle_buffer": 0, "packing_buffer": 1, "samples_per_pack": 1,
        "mixture": dict.fromkeys(folders, 1.0),
    }  # fmt: skip
    data = DataConfig(datasets=datasets, decode=decode or DecodeConfig(), **{**defaults, **values})
    stage = StageConfig(name="bench", frames=FrameConfig(fps=1.0, min_frames=1, max_frames=256), **stage_values)
    config = model_of(image_size)
    return build_loader(data, stage, config, tokenizer_of(config))
