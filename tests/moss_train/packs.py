"""Small models and hand-made packed micro-batches for tests that need no data pipeline."""

from __future__ import annotations

from model.config import SwitchConfig, TextConfig, VideoMllamaConfig, VisionConfig
from moss_train.verify.layouts.subject import DATASETS, SILENCE, make_pack

__all__ = ["DATASETS", "SILENCE", "make_pack", "tiny_config"]


def tiny_config(cross_attention_layers: tuple[int, ...] = (1, 3)) -> VideoMllamaConfig:
    """Four layers of width 32, a tower of width 16 on 16 x 16 pixels."""
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
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=4,
            cross_attention_layers=cross_attention_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
        ),
        switches=SwitchConfig(no_visible_rows="skip"),
    )
