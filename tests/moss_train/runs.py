"""A small real dataset (mp4, JPEG and text in shards) and run configs on it, for tests that train."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards.writer import write_samples
from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from data_pipeline.world.video import encode_jpeg, encode_mp4
from model.config import VideoMllamaConfig
from moss_train.config.build import build
from moss_train.config.compose import save_config
from moss_train.config.schema import RunConfig
from tests.moss_train.packs import tiny_config

VOCABULARY = 300
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230)}


def run_model() -> VideoMllamaConfig:
    """The tiny model with room for the demo tokenizer."""
    config = tiny_config()
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=VOCABULARY))


def _picture(rng: np.random.Generator, colour: str) -> np.ndarray[Any, Any]:
    picture = np.asarray(COLOURS[colour], dtype=np.int64) + rng.integers(-20, 20, (32, 32, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def _samples(kind: str, count: int, seed: int) -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
    rng = np.random.default_rng(seed)
    names = list(COLOURS)
    for i in range(count):
        colour = names[rng.integers(len(names))]
        ask = [Message(role="user", content="what colour is it?"), Message(role="assistant", content=f"it is {colour}.")]
        if kind == "text":
            yield f"t{i}", Sample(kind="text", messages=ask), {}
        elif kind == "video":
            ask[0].content = "<|video|>" + ask[0].content
            media = Media(type="video", file="0.mp4", fps=1.0, min_frames=1, max_frames=3)
            clip = encode_mp4(np.stack([_picture(rng, colour) for _ in range(1 + i % 3)]))
            yield f"v{i}", Sample(kind="video", messages=ask, media=[media]), {"0.mp4": clip}
        elif kind == "image":
            ask[0].content = "<|image|>" + ask[0].content
            media = Media(type="image", file="0.jpg")
            yield f"i{i}", Sample(kind="image", messages=ask, media=[media]), {"0.jpg": encode_jpeg(_picture(rng, colour))}
        else:
            labels = [[[names.index(colour)] * 4 for _ in range(4)] for _ in range(2)]  # every patch of both frames
            messages = [Message(role="user", content=""), Message(role="assistant", content="<|video|>")]
            media = Media(type="video", file="0.mp4", fps=1.0, min_frames=1, max_frames=2)
            sample = Sample(kind="dense", messages=messages, media=[media], template="mllama_pretrain", dense=labels)
            clip = encode_mp4(np.stack([_picture(rng, colour) for _ in range(2)]))
            yield f"d{i}", sample, {"0.mp4": clip}


def write_data(root: Path, count: int = 24) -> None:
    """Shards of every kind under `root`, `count` samples of each, held-out sets, and a tokenizer."""
    texts = [m.content for _, sample, _ in _samples("text", 20, 0) for m in sample.messages]
    train_demo_tokenizer(texts, VOCABULARY).save(root / "tokenizer.json")
    for kind in ("text", "video", "image", "dense"):
        write_samples(root / kind, _samples(kind, count, 1), samples_per_shard=12)
    for kind in ("text", "video", "dense"):
        write_samples(root / f"held_out_{kind}", _samples(kind, 8, 2), samples_per_shard=8)


def run_config(root: Path, run_dir: Path, stage: str = "pt2", steps: int = 4, **changes: Any) -> RunConfig:
    """A run on `write_data(root)`.

    Args:
        stage: pt1 | pt2 | warm_text | warm_vision.
        changes: `group__field=value` for any value of the config.
    """
    dense = stage == "warm_vision"
    preset = {"pt1": "projector_only", "warm_text": "text_only", "warm_vision": "vision_tower"}.get(stage, "all")
    kinds = {"warm_text": ["text"], "warm_vision": ["dense"]}.get(stage, ["text", "video", "image"])
    held_out = "video" if "video" in kinds else kinds[0]
    values: dict[str, Any] = {
        "run_dir": str(run_dir),
        "model": dataclasses.asdict(run_model()),
        "stage": {
            "name": stage,
            "objective": "dense_labels" if dense else "next_token",
            "trainable": preset,
            "sequence_length": 96,
            "max_frames_per_pack": 8,
            "learning_rate": 3e-3,
            "gate_init": 0.5,
            "dense_classes": 4,
        },
        "data": {
            "root": str(root),
            "datasets": [{"name": kind, "path": kind, "modality": kind} for kind in kinds],
            "validation": [{"name": "held_out", "path": f"held_out_{held_out}", "modality": held_out}],
            "mixture": dict.fromkeys(kinds, 1.0),
            "global_data_workers": 2,
            "shuffle_buffer": 8,
            "packing_buffer": 6,
        },
        "train": {"steps": steps, "global_batch_size": 2, "eval_batches": 2},
        "precision": {"dtype": "fp32"},
        "logging": {"progress": False},
        "device": "auto",
    }
    for name, value in changes.items():
        group, _, field = name.partition("__")
        if field:
            values.setdefault(group, {})[field] = value
        else:
            values[group] = value
    config: RunConfig = build(RunConfig, values)
    return config


def save_run_config(config: RunConfig, path: Path) -> Path:
    """Write it for `moss train --config`."""
    save_config(config, path)
    return path
