"""Round trips between run folders and the Hugging Face layout, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.conversion.folder import read_hf_folder, write_hf_folder
from moss_train.cli.main import main
from tests.model.small import lively_weights, small_config


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bf16 folder whose vocabulary needs padding rows, with everything that should survive."""
    root = tmp_path_factory.mktemp("published")
    tokenizer = root / "any.json"
    tokenizer.write_text('{"model": 1}')
    config = small_config(rope_inv_freq_dtype="bf16")
    weights = {name: tensor.bfloat16() for name, tensor in lively_weights(config, 1).items()}
    extra = {"frames": {"fps": 2.0, "min_frames": 1, "max_frames": 9}, "template": "mllama"}
    return write_hf_folder(root / "hf", weights, config, stage="sft_realtime", tokenizer_path=tokenizer, extra=extra)


@pytest.mark.parametrize(
    "layout",
    [[], pytest.param(["--tp", "2"], marks=pytest.mark.ranks), pytest.param(["--pp", "2"], marks=pytest.mark.ranks)],
    ids=["tp1", "tp2", "pp2"],
)
def test_round_trip_keeps_every_bit(published: Path, tmp_path: Path, layout: list[str]) -> None:
    assert main(["convert", "from-hf", str(published), str(tmp_path / "run"), *layout]) == 0
    assert main(["convert", "to-hf", str(tmp_path / "run"), str(tmp_path / "back")]) == 0
    assert (tmp_path / "back/model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()
    assert (tmp_path / "back/tokenizer.json").read_bytes() == (published / "tokenizer.json").read_bytes()
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (published, tmp_path / "back"))
    assert after.pop("moss_train") == before.pop("moss_train") | {"step": 0}
    assert after == before


def test_the_plain_format_says_what_it_loses(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["convert", "from-hf", str(published), str(tmp_path / "run")])
    capsys.readouterr()
    assert main(["convert", "to-hf", str(tmp_path / "run"), str(tmp_path / "plain"), "--format", "mllama"]) == 0
    assert "computes another function" in capsys.readouterr().err
    content = json.loads((tmp_path / "plain/config.json").read_text())
    assert content["model_type"] == "mllama" and "merge_mode" not in content["vision_config"]
    config, tensors, _ = read_hf_folder(tmp_path / "plain")
    _, original, _ = read_hf_folder(published)
    assert all(torch.equal(tensors[name], original[name]) for name in original)
    assert config.text == small_config().text


def test_bad_sources_and_targets_are_named(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["convert", "from-hf", str(published), str(tmp_path / "run")])
    for arguments, named in (
        (["from-hf", published, tmp_path / "run"], "already holds a checkpoint"),
        (["from-hf", published, tmp_path / "other", "--tp", "4"], "num_key_value_heads 2"),
        (["from-hf", tmp_path / "none", tmp_path / "other"], "none/config.json does not exist"),
        (["to-hf", tmp_path / "none", tmp_path / "out"], "none does not exist"),
        (["to-hf", tmp_path, tmp_path / "out"], "holds no published checkpoint"),
        (["to-hf", tmp_path / "run", tmp_path / "run"], "holds other files than a checkpoint"),
    ):
        assert main(["convert", *map(str, arguments)]) == 2
        assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "other").exists()
