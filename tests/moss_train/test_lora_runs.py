"""Whole runs with adapters: learning, continuing, starting from one, exporting, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.conversion import gather_hf_weights
from model.conversion.folder import write_hf_folder
from model.errors import InputError
from moss_train.checkpoint import load_model_weights
from moss_train.checkpoint.description import read_description, write_description
from moss_train.checkpoint.tensors import CheckpointTensors
from moss_train.cli.main import main
from moss_train.config.schema import LoraConfig, ParallelConfig, StageConfig
from moss_train.engines.adapters import lora_spec
from moss_train.engines.models import build_models
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world
from moss_train.platform.device import resolve_device
from moss_train.trainer import Outcome, train
from tests.model.small import lively_weights
from tests.moss_train.resume_ranks import rows
from tests.moss_train.runs import run_config, run_model, write_data

TARGETS = ["attention_qkv", "cross_kv", "cross_proj", "mlp_fc1", "mlp_fc2", "vision_attention"]
LORA = {"rank": 4, "alpha": 6.0, "targets": TARGETS}
STEPS, SAVED = 24, 22
HERE: dict[str, Any] = {"data__global_data_workers": 1, "data__worker_processes": 0}


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    """Each run starts its own layout."""
    yield
    stop_layout()


def run(data: Path, run_dir: Path, steps: int = STEPS, **changes: Any) -> Outcome:
    """Train in this process."""
    stop_layout()
    stage = {"stage__learning_rate": 2e-2, "train__save_every": SAVED, "train__keep_last": 3}
    return train(run_config(data, run_dir, "pt2", steps, **(HERE | stage | changes)))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset and a run with adapters on it."""
    root = tmp_path_factory.mktemp("lora")
    write_data(root)
    # Weights that do not train must be able to say something: the head of a fresh model is too small for sure answers.
    write_hf_folder(root / "start", lively_weights(run_model(), 1), run_model())
    run(root, root / "run", lora=LORA, train__init_from=str(root / "start"))
    stop_layout()  # whichever test comes first in a process starts its own
    return root, root / "run"


def evaluations(run_dir: Path) -> list[float]:
    """Held-out losses of a run, before and after."""
    return [row["eval_loss"] for row in rows(run_dir) if "eval_loss" in row]


def merged_weights(path: Path) -> dict[str, torch.Tensor]:
    """Published names to tensors after loading into a live model."""
    stop_layout()
    device = resolve_device("auto")
    start_world(device)
    models = build_models(run_model(), start_layout(ParallelConfig(), device, 1))
    load_model_weights(path, models.chunks, models.vision)
    weights = gather_hf_weights(models.chunks, models.vision)
    assert weights is not None
    return weights


def test_adapters_learn_and_the_weights_stay(adapted: tuple[Path, Path]) -> None:
    _, run_dir = adapted
    before, after = evaluations(run_dir)
    assert after < 0.5 * before
    checkpoints = sorted((run_dir / "checkpoints").iterdir())
    assert [c.name for c in checkpoints] == [f"step_{SAVED:08d}", f"step_{STEPS:08d}"]
    first, last = (CheckpointTensors(c) for c in checkpoints)
    weights = [key for key in sorted(last.keys()) if key.startswith(("decoder.", "vision.", "embedding.", "output_layer."))]
    moved = {key for key in weights if not torch.equal(*(t.read_rows(key, 0, t.info(key).shape[0]) for t in (first, last)))}
    assert moved == {key for key in weights if ".adapter." in key}
    assert len(moved) == 2 * (2 * 3 + 2 * 4 + 3 * 4)  # text, cross and tower layers
    assert read_description(checkpoints[-1]).lora == LORA | {"parts": ["cross_layers", "text", "vision_tower"], "train_also": []}


def test_a_continued_run_repeats_the_whole_one(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    data, run_dir = adapted
    shutil.copytree(run_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step_{STEPS:08d}")
    (tmp_path / "run" / "latest").write_text(f"step_{SAVED:08d}\n")
    outcome = run(data, tmp_path / "run", lora=LORA)
    assert outcome.step == STEPS
    assert rows(tmp_path / "run") == rows(run_dir)


def test_a_run_that_starts_from_adapters_starts_where_they_ended(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    data, run_dir = adapted
    run(data, tmp_path / "plain", 0, train__init_from=str(run_dir), stage__gate_init=None)
    new = LORA | {"rank": 2, "targets": ["mlp_fc1"], "train_also": ["gates"]}
    run(data, tmp_path / "again", 0, train__init_from=str(run_dir), lora=new, stage__gate_init=None)
    for name in ("plain", "again"):
        assert evaluations(tmp_path / name)[0] == pytest.approx(evaluations(run_dir)[-1], rel=1e-6)
    newest = tmp_path / "again" / "checkpoints" / "step_00000000"
    assert read_description(newest).lora == new | {"parts": ["cross_layers", "text", "vision_tower"]}


def test_exports_hold_the_merged_weights_or_the_adapters_alone(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    _, run_dir = adapted
    assert main(["convert", "to-hf", str(run_dir), str(tmp_path / "hf")]) == 0
    assert main(["convert", "to-hf", str(run_dir), str(tmp_path / "peft"), "--adapters", "--base", "org/base"]) == 0
    merged, exported = merged_weights(run_dir), load_file(tmp_path / "hf" / "model.safetensors")
    assert merged.keys() == exported.keys()
    assert all(torch.equal(merged[name], exported[name]) for name in merged)
    description = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (description["r"], description["lora_alpha"], description["base_model_name_or_path"]) == (4, 6.0, "org/base")
    factors = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    modules = description["target_modules"]
    assert len(factors) == 2 * len(modules) == 2 * (2 * 6 + 2 * 6 + 3 * 4)  # the parts of fused matrices each for themselves
    stop_layout()
    base = base_weights(run_dir, tmp_path)
    for module in modules:
        a, b = (factors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
        assert a.shape[0] == b.shape[1] == 4
        expected = base[f"{module}.weight"] + 1.5 * b @ a
        torch.testing.assert_close(exported[f"{module}.weight"], expected, atol=1e-6, rtol=1e-5)
        assert not torch.equal(exported[f"{module}.weight"], base[f"{module}.weight"])
    same = {name for name in exported if torch.equal(exported[name], base[name])}
    assert same == {name for name in exported if name.removesuffix(".weight") not in modules}


def base_weights(run_dir: Path, scratch: Path) -> dict[str, torch.Tensor]:
    """The weights below the adapters: a copy of the checkpoint that says nothing of them."""
    newest = run_dir / "checkpoints" / f"step_{STEPS:08d}"
    shutil.copytree(newest, scratch / "base")
    write_description(scratch / "base", replace(read_description(scratch / "base"), lora=None))
    return merged_weights(scratch / "base")


@pytest.mark.parametrize(
    ("lora", "named"),
    [
        (LORA | {"rank": 2}, "lora.rank 4 and this run asks for 2"),
        (LORA | {"alpha": 1.0}, "lora.alpha 6.0 and this run asks for 1.0"),
        (LORA | {"targets": ["mlp_fc1"]}, "lora.targets"),
        (LORA | {"train_also": ["gates"]}, "lora.train_also"),
        ({"rank": 0}, "holds adapters of rank 4 and lora.rank asks for none; set lora.rank=4"),
    ],
)
def test_other_adapters_cannot_continue(adapted: tuple[Path, Path], lora: dict[str, Any], named: str) -> None:
    data, run_dir = adapted
    with pytest.raises(InputError, match=named):
        run(data, run_dir, lora=lora)


def test_a_run_without_adapters_cannot_continue_with_some(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = adapted
    run(data, tmp_path / "run", 0)
    with pytest.raises(InputError, match=r"holds no adapters and lora\.rank asks for some; set lora\.rank=0"):
        run(data, tmp_path / "run", lora=LORA)
    with pytest.raises(InputError, match="holds no adapters; convert it without --adapters"):
        from moss_train.convert.adapters import checkpoint_to_adapters

        checkpoint_to_adapters(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("lora", "stage", "named"),
    [
        (LoraConfig(rank=2), StageConfig(name="x", objective="dense_labels", trainable="vision_tower"), "dense_labels"),
        (
            LoraConfig(rank=2, train_also=["projector"]),
            StageConfig(name="x", trainable="text_only"),
            "train_also names projector",
        ),
    ],
)
def test_adapters_that_the_stage_has_no_use_for_are_refused(lora: LoraConfig, stage: StageConfig, named: str) -> None:
    with pytest.raises(InputError, match=named):
        lora_spec(lora, stage)


def test_vision_targets_where_vision_is_frozen_are_refused(adapted: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = adapted
    with pytest.raises(InputError, match=r"vision_attention, whose layers stage\.trainable leaves frozen"):
        run(data, tmp_path / "run", stage__trainable="text_only", lora={"rank": 2, "targets": ["mlp_fc1", "vision_attention"]})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rank": -1}, "lora.rank is -1"),
        ({"rank": 2, "alpha": 0.0}, "lora.alpha is 0.0"),
        ({"rank": 2, "targets": []}, "lora.targets is empty"),
        ({"rank": 2, "targets": ["qkv"]}, "lora.targets is 'qkv'; use one of attention_qkv"),
        ({"rank": 2, "targets": ["mlp_fc1", "mlp_fc1"]}, "names a target twice"),
        ({"rank": 2, "train_also": ["biases"]}, "lora.train_also is 'biases'"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        LoraConfig(**values)
