"""Small models and hand-made packed micro-batches for tests that need no data pipeline."""

from __future__ import annotations

from model.config import TextConfig, VideoMllamaConfig
from moss_train.verify.layouts.subject import DATASETS, SILENCE, make_pack, subject_config

__all__ = ["DATASETS", "SILENCE", "make_pack", "tiny_config"]


def tiny_config(cross_attention_layers: tuple[int, ...] = (1, 3)) -> VideoMllamaConfig:
    """Four layers of width 32, a tower of width 16 on 16 x 16 pixels."""
    return VideoMllamaConfig(
        vision=subject_config().vision,
        text=TextConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=4,
            cross_attention_layers=cross_attention_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
        ),
        switches=subject_config().switches,
    )
