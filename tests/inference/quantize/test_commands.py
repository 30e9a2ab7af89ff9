"""--precision and --cross_kv on the commands: what they change, and what is refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference import offline_infer
from inference.commands import load_engine, precision_from
from inference.quantize import Fp8Linear
from model.errors import InputError
from moss_train.cli.main import main as moss
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, tokenizer = tmp_path_factory.mktemp("precision"), tiny_tokenizer()
    write_checkpoint(root / "ck", tiny_config(tokenizer.vocab_size), tokenizer=tokenizer, stage="sft_realtime")
    Image.fromarray(np.full((20, 30, 3), 130, dtype=np.uint8)).save(root / "still.png")
    return root


def arguments(files: Path, **given: str | None) -> argparse.Namespace:
    return argparse.Namespace(
        **{"checkpoint": str(files / "ck"), "device": "cpu", "dtype": "auto", "precision": None, "cross_kv": "bf16"} | given
    )


def test_engines_have_the_form_that_is_asked_for(files: Path) -> None:
    for precision, first, dtype in (
        (None, "DenseLinear", torch.float32),
        ("bf16", "DenseLinear", torch.bfloat16),
        ("fp8", "Fp8Linear", torch.float32),
    ):
        engine, _ = load_engine(arguments(files, precision=precision))
        assert type(engine.model.layers[0].qkv).__name__ == first and engine.model.dtype == dtype
        assert engine.store.cross_pool.scales(0) is None
    engine, _ = load_engine(arguments(files, precision="fp8_self", cross_kv="fp8"))
    assert not isinstance(engine.model.cross_layers[0].gate_up, Fp8Linear)
    assert engine.store.cross_pool.scales(0) is not None and engine.store.self_pool.scales(0) is None
    assert not engine.store.cross_pool.shape.raw_keys
    policy = {"cross_policy": "pooled:4", "text_window": "full", "position_limit": None}
    engine, _ = load_engine(arguments(files, **policy))
    assert engine.store.cross_pool.shape.raw_keys and engine.store.cross_pool.scales(0) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"precision": "int4"}, "precision is 'int4'; use one of bf16, fp8, fp8_self"),
        ({"precision": "bf16", "dtype": "fp32"}, "--precision bf16 and --dtype fp32 contradict each other"),
        ({"cross_kv": "fp4"}, "--cross_kv is 'fp4'; use bf16 or fp8"),
    ],
)
def test_bad_precisions_are_named(files: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        precision_from(arguments(files, **given), "cpu")


def test_an_answer_in_fp8(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--checkpoint", str(files / "ck"), "--image_path", str(files / "still.png"), "--max_new_tokens", "4"]
    assert offline_infer.main([*common, "--precision", "fp8", "--cross-kv", "fp8"]) == 0
    assert offline_infer.main([*common, "--precision", "fp9"]) == 2
    assert "precision is 'fp9'" in capsys.readouterr().err


def test_scenarios_in_fp8(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "clip.mp4", [20, 230], fps=1)
    scenario = {"id": "a", "video": "clip.mp4", "fps": 1, "num_frames": 2, "spans": [{"a": 0, "b": 0, "text": "red"}]}
    (tmp_path / "s.jsonl").write_text(json.dumps(scenario) + "\n")
    common = ["eval", str(tmp_path / "s.jsonl"), "--checkpoint", str(files / "ck"), "--out", str(tmp_path / "out")]
    assert moss([*common, "--tokens-per-frame", "2", "--precision", "fp8"]) == 0
    assert (tmp_path / "out" / "scores.json").exists()
    assert moss([*common, "--precision", "fp9"]) == 2
    assert "precision is 'fp9'" in capsys.readouterr().err
