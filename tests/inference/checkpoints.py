"""Small checkpoints with random weights, written to disk as a user's would be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from data_pipeline.text.tokenizer import Tokenizer
from inference.model.load import text_shapes
from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.vision.encoder import VisionEncoder

SENTENCES = (
    "red ball appears",
    "blue flag leaves",
    "green board turns yellow",
    "what colour is the ball ?",
    "left right up down",
)


def tiny_tokenizer() -> Tokenizer:
    return train_demo_tokenizer(SENTENCES, vocab_size=300)


def tiny_config(vocab_size: int = 300) -> VideoMllamaConfig:
    """Five layers of which two cross, grouped queries, five tokens a frame of 28 pixels."""
    return VideoMllamaConfig(
        vision=VisionConfig(
            hidden_size=16,
            num_attention_heads=2,
            num_hidden_layers=3,
            num_global_layers=1,
            intermediate_size=32,
            image_size=28,
            patch_size=7,
            intermediate_layers_indices=(1, 2),
            pool_stride=2,
        ),
        text=TextConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            num_hidden_layers=5,
            cross_attention_layers=(1, 3),
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        ),
    )


def random_tensors(config: VideoMllamaConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, large enough that each one matters to the logits, gates open."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes: dict[str, tuple[int, ...]] = {k: tuple(v.shape) for k, v in VisionEncoder(config).state_dict().items()}
    shapes |= text_shapes(config)
    tensors = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            value = 1 + 0.3 * value
        elif "gate" in name and shape == (1,):
            value = value.abs() + 0.5
        elif len(shape) > 1:
            value = value / shape[-1] ** 0.5
        tensors[name] = value
    return tensors


def write_checkpoint(
    folder: Path,
    config: VideoMllamaConfig,
    *,
    tokenizer: Tokenizer | None = None,
    stage: str | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
    details: dict[str, Any] | None = None,
) -> Path:
    """config.json, model.safetensors and, where given, tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    content = config.to_hf()
    if stage is not None or details is not None:
        content["moss_train"] = {**({"stage": stage} if stage else {}), **(details or {})}
    (folder / "config.json").write_text(json.dumps(content))
    save_file(tensors or random_tensors(config), str(folder / "model.safetensors"))
    if tokenizer is not None:
        tokenizer.save(folder / "tokenizer.json")
    return folder
