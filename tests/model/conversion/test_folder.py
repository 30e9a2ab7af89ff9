"""Folders: what is written is read back, bad ones are refused by name, nothing half-written stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from model.config import VideoMllamaConfig
from model.conversion.folder import read_hf_folder, write_hf_folder
from model.errors import InputError
from model.initialise import RandomWeights
from tests.model.small import small_config


@pytest.fixture(scope="module")
def config() -> VideoMllamaConfig:
    return small_config(rope_inv_freq_dtype="bf16")


@pytest.fixture(scope="module")
def weights(config: VideoMllamaConfig) -> dict[str, torch.Tensor]:
    return {name: tensor.bfloat16() for name, tensor in RandomWeights(config, 1).items()}


def test_round_trip(config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    tokenizer = tmp_path / "my_tokenizer.json"
    tokenizer.write_text("{}")
    write_hf_folder(tmp_path / "hf", weights, config, stage="pt1", tokenizer_path=tokenizer, extra={"template": "mllama"})
    read, tensors, section = read_hf_folder(tmp_path / "hf")
    assert read == config
    assert set(tensors) == set(weights) and all(torch.equal(tensors[n], t) for n, t in weights.items())
    assert section["stage"] == "pt1" and section["template"] == "mllama"
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert names == {
        "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"
    }  # fmt: skip
    content = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert content["torch_dtype"] == "bfloat16" and content["vision_config"]["merge_mode"] == "average"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "my_tokenizer.json"]


def test_generation_ends_at_the_tokens_of_both_templates(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    added = [{"id": 7, "content": "<|eot_id|>"}, {"id": 5, "content": "<|end_of_text|>"}, {"id": 9, "content": "<|silence|>"}]
    tokenizer.write_text(json.dumps({"added_tokens": added}))
    write_hf_folder(tmp_path / "hf", weights, config, tokenizer_path=tokenizer)
    ending = json.loads((tmp_path / "hf" / "generation_config.json").read_text())["eos_token_id"]
    assert {5, 7} <= set(ending) <= {5, 7, config.text.eos_token_id}


@pytest.mark.parametrize("target", [".", ".."])
def test_a_target_without_a_name_is_refused(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(InputError, match="give the folder's name"):
        write_hf_folder(target, weights, config)


def test_large_weights_are_spread_behind_an_index(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    write_hf_folder(tmp_path / "hf", weights, config, max_file_bytes=20_000)
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == sum(2 * t.numel() for t in weights.values())
    _, tensors, _ = read_hf_folder(tmp_path / "hf")
    assert all(torch.equal(tensors[n], t) for n, t in weights.items())


def test_the_plain_format_warns_and_says_nothing_of_pooling(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="computes another function"):
        write_hf_folder(tmp_path / "hf", weights, config, model_format="mllama")
    content = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert content["model_type"] == "mllama" and "merge_mode" not in content["vision_config"]


def test_an_older_checkpoint_is_replaced(config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    write_hf_folder(tmp_path / "hf", weights, config, stage="pt1", max_file_bytes=20_000)
    write_hf_folder(tmp_path / "hf", weights, config, stage="pt2")
    assert read_hf_folder(tmp_path / "hf")[2]["stage"] == "pt2"
    assert not list((tmp_path / "hf").glob("model-*"))
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_an_older_checkpoint_comes_back_where_publishing_fails(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    target = write_hf_folder(tmp_path / "hf", weights, config, stage="pt1")
    with pytest.raises(FileNotFoundError):  # what was written vanishes at the last moment
        write_hf_folder(target, weights, config, stage="pt2", finish=lambda written: shutil.move(written, tmp_path / "away"))
    assert read_hf_folder(target)[2]["stage"] == "pt1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "hf"]


def test_a_folder_of_other_files_is_left_alone(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(InputError, match="holds other files"):
        write_hf_folder(tmp_path, weights, config)
    assert (tmp_path / "thesis.tex").exists()


def test_a_published_checkpoint_is_left_alone(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
    (tmp_path / "model.safetensors").write_text("twenty gigabytes")
    with pytest.raises(InputError, match="another program wrote"):
        write_hf_folder(tmp_path, weights, config)
    assert (tmp_path / "model.safetensors").exists()


def test_a_failed_write_leaves_nothing(config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tokenizer"):
        write_hf_folder(tmp_path / "hf", weights, config, tokenizer_path=tmp_path / "none.json")
    with pytest.raises(TypeError):
        write_hf_folder(tmp_path / "hf", weights, config, extra={"frames": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"config.json": None}, "config.json does not exist"),
        ({"config.json": "{"}, "cannot be read as JSON"),
        ({"config.json": "[]"}, "holds a list"),
        ({"model.safetensors": None}, "neither model.safetensors"),
        ({"model.safetensors": "not tensors"}, "not readable as safetensors"),
        ({"config.json": '{"model_type": "llava"}'}, "model_type 'llava'"),
    ],
)
def test_broken_folders_are_named(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path, broken: dict[str, str | None], named: str
) -> None:
    folder = write_hf_folder(tmp_path / "hf", weights, config)
    for name, content in broken.items():
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(InputError, match=named):
        read_hf_folder(folder)


def test_the_plain_format_loads_in_the_stock_model(
    config: VideoMllamaConfig, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    with pytest.warns(UserWarning):
        write_hf_folder(tmp_path / "hf", weights, config, model_format="mllama")
    _, report = transformers.MllamaForConditionalGeneration.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"moss_train": "x"}, "moss_train in .* is 'x', not an object"),
        ("config.json", {"moss_train": {"switches": 3}}, "switches in .* is 3, not an object"),
        ("config.json", {"model_type": "gemma"}, "hf: config.json has model_type 'gemma'"),
        ("config.json", {"text_config": {"hidden_size": "big"}}, "unexpected form|hidden_size"),
        ("model.safetensors.index.json", {"weight_map": []}, "weight_map does not say"),
    ],
)
def test_odd_fields_are_named(
    config: VideoMllamaConfig,
    weights: dict[str, torch.Tensor],
    tmp_path: Path,
    file: str,
    change: dict[str, object],
    message: str,
) -> None:
    path = write_hf_folder(tmp_path / "hf", weights, config) / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=message):
        read_hf_folder(tmp_path / "hf")
