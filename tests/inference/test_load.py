"""Reading checkpoint folders: whole ones load, broken ones say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inference.engine import StepEngine
from inference.model import load_model
from model.errors import InputError
from tests.inference.checkpoints import random_tensors, tiny_config, write_checkpoint

CONFIG = tiny_config(vocab_size=40)
NORM = "language_model.model.norm.weight"


def test_split_files_equal_one_file(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    whole = write_checkpoint(tmp_path / "whole", CONFIG, tensors=tensors)
    split = write_checkpoint(tmp_path / "split", CONFIG, tensors=tensors)
    (split / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, str(split / file))
    index = {"weight_map": {name: file for file, members in parts.items() for name in members}}
    (split / "model.safetensors.index.json").write_text(json.dumps(index))
    rows = []
    for folder in (whole, split):
        engine = StepEngine(load_model(folder))
        rows.append(engine.step(engine.new_cache(), [1, 2, 3]))
    assert torch.equal(rows[0], rows[1])
    (split / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors does not exist"):
        load_model(split)


def test_stage_is_read_from_the_config(tmp_path: Path) -> None:
    assert load_model(write_checkpoint(tmp_path / "a", CONFIG, stage="sft_realtime")).details == {"stage": "sft_realtime"}
    assert load_model(write_checkpoint(tmp_path / "b", CONFIG)).details == {}


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    del tensors[NORM]
    with pytest.raises(InputError, match=f"lacks the tensor {NORM}"):
        load_model(write_checkpoint(tmp_path, CONFIG, tensors=tensors))


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG) | {"language_model.model.layers.9.surprise": torch.zeros(2)}
    with pytest.raises(InputError, match=r"layers\.9\.surprise"):
        load_model(write_checkpoint(tmp_path, CONFIG, tensors=tensors))


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG) | {NORM: torch.ones(31)}
    with pytest.raises(InputError, match=rf"{NORM} has the shape \[31\], config.json asks for \[32\]"):
        load_model(write_checkpoint(tmp_path, CONFIG, tensors=tensors))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "not an object"),
        ("config.json", '{"model_type": "llama"}', "model_type 'llama'"),
        ("model.safetensors", "nonsense", "not a readable safetensors"),
        ("config.json", '{"model_type": "mllama", "moss_train": "x"}', "moss_train in .* is 'x', not an object"),
        ("config.json", '{"model_type": "mllama", "moss_train": {"switches": 3}}', "switches in .* is 3, not an object"),
        ("config.json", '{"model_type": "mllama", "moss_train": {"frames": [1]}}', "frames in .* not an object"),
        ("model.safetensors.index.json", '{"weight_map": []}', "weight_map does not say"),
        ("model.safetensors.index.json", '{"weight_map": {"a": 3}}', "weight_map does not say"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, file: str, content: str, message: str) -> None:
    folder = write_checkpoint(tmp_path, CONFIG)
    (folder / file).write_text(content)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_no_folder_and_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_model(tmp_path / "nowhere")
    folder = write_checkpoint(tmp_path / "x", CONFIG)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds 0 safetensors"):
        load_model(folder)
