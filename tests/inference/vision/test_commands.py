"""Commands choose the vision mode by name."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from inference.commands import add_model_arguments, load_engine
from inference.vision.mode import VisionMode, vision_mode
from model.errors import InputError
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint


def _mode(folder: Path, *words: str) -> VisionMode:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    engine, _ = load_engine(parser.parse_args(["--checkpoint", str(folder), *words]))
    mode: VisionMode = engine.encoder.mode
    return mode


def test_modes_by_argument(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    folder = write_checkpoint(tmp_path / "checkpoint", tiny_config(tokenizer.vocab_size), tokenizer=tokenizer)
    assert _mode(folder) == VisionMode()
    assert _mode(folder, "--vision", "fast", "--near-duplicate", "6") == vision_mode("fast", near_duplicate=6.0)
    with pytest.raises(InputError, match="vision mode 'best' is not known"):
        _mode(folder, "--vision", "best")
    with pytest.raises(InputError, match="near_duplicate is 300"):
        _mode(folder, "--near_duplicate", "300")
