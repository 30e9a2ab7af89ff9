"""Composition of the configuration: choices, overrides, errors, round trips."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.compose import choices, compose, conf_dir, load_config, save_config, to_yaml
from moss_train.config.schema import MODALITIES

STAGES = ("warm_vision", "warm_text", "pt1", "pt2", "sft_offline", "sft_realtime")


def test_the_six_stages_are_there() -> None:
    assert set(choices("stage")) == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_carries_objective_mixture_and_name(stage: str) -> None:
    config = compose([f"stage={stage}"])
    assert config.stage.name == stage
    assert config.run_dir == f"runs/{stage}"
    assert set(config.data.mixture) == set(MODALITIES)
    assert sum(config.data.mixture.values()) == pytest.approx(1.0)
    assert config.stage.frames.max_frames <= config.stage.max_frames_per_pack or config.data.mixture["video"] == 0


@pytest.mark.parametrize(
    ("stage", "shares"),
    [
        ("pt1", (0.0, 0.79, 0.21, 0.0)),
        ("pt2", (0.0, 0.26, 0.74, 0.0)),
        ("sft_offline", (0.14, 0.44, 0.42, 0.0)),
        ("sft_realtime", (0.11, 0.29, 0.0, 0.60)),
    ],
)
def test_published_mixtures(stage: str, shares: tuple[float, ...]) -> None:
    mixture = compose([f"stage={stage}"]).data.mixture
    assert tuple(mixture[m] for m in ("text", "image", "video", "realtime")) == shares


def _group_files() -> list[str]:
    no_groups = ("stage", "demo", "experiment", "generator")  # tests of their own; a corpus is no part of a run
    groups = [p.name for p in conf_dir().iterdir() if p.is_dir() and p.name not in no_groups]
    return [f"{group}={name}" for group in sorted(groups) for name in choices(group)]


@pytest.mark.parametrize("choice", _group_files())
def test_every_file_of_a_group_is_a_usable_choice(choice: str) -> None:
    config = compose(["stage=pt2", choice])
    assert VideoMllamaConfig.from_dict(config.model).text.vocab_size > 0


def _demo_overlays() -> list[str]:
    texts = {p.stem: p.read_text(encoding="utf-8") for p in (conf_dir() / "demo").glob("*.yaml")}
    return sorted(name for name, text in texts.items() if "@package _global_" in text)


@pytest.mark.parametrize("name", _demo_overlays())
def test_every_demo_overlay_chooses_a_small_fp32_run(name: str) -> None:
    config = compose([f"demo={name}"])
    assert config.stage.name in STAGES
    assert config.precision.dtype == "fp32"
    assert config.model["text"]["hidden_size"] <= 512


def test_overrides_reach_groups_and_values() -> None:
    config = compose(["stage=pt2", "parallel=tp2_pp2", "data.mixture.video=0.8", "train.steps=7", "stage.learning_rate=1e-4"])
    assert (config.parallel.tensor, config.parallel.pipeline) == (2, 2)
    assert config.data.mixture["video"] == 0.8
    assert config.train.steps == 7
    assert config.stage.learning_rate == 1e-4


def test_model_values_override_and_complete() -> None:
    config = compose(["stage=pt1", "model.switches.no_visible_rows=attend_all"])
    assert VideoMllamaConfig.from_dict(config.model).switches.no_visible_rows == "attend_all"
    assert config.model["text"]["rope_scaling"]["factor"] == 8.0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], ("stage is not chosen", "pt1, pt2")),
        (["stage=pt3"], ("stage=pt3", "pt1, pt2")),
        (["stage=pt1", "parallel=tp3"], ("parallel=tp3", "tp2_pp2")),
        (["stage=pt1", "train.stpes=3"], ("train.stpes", "did you mean train.steps")),
        (["sage=pt1"], ("sage", "did you mean stage")),
        (["stage=pt1", "+train.colour=3"], ("train.colour", "use one of")),
        (["stage=pt1", "+train.steps=4"], ("train.steps exists already",)),
        (["stage=pt1", "train.steps=1.5"], ("train.steps is 1.5", "whole number")),
        (["stage=pt1", "train.log_every=0"], ("train.log_every is 0", "at least 1")),
        (["stage=pt1", "train.save_every=-1"], ("train.save_every is -1", "at least 0")),
        (["stage=pt1", "vision.encode_chunk_frames=0"], ("vision.encode_chunk_frames is 0", "at least 1")),
        (["stage=pt1", "stage.frames.fps=0"], ("stage.frames.fps is 0", "above 0")),
        (["stage=pt1", "train.steps=-1"], ("train.steps is -1", "at least 0")),
        (["stage=pt1", "stage.frames.fps=fast"], ("stage.frames.fps is 'fast'", "a number")),
        (["stage=pt1", "stage.trainable=everything"], ("stage.trainable is 'everything'", "projector_only")),
        (["stage=pt1", "parallel.sequence_parallel=maybe"], ("parallel.sequence_parallel is 'maybe'", "true or false")),
        (["stage=pt1", "train=5"], ("train is 5", "group of settings")),
        (["stage=pt1", "data.mixture.films=1"], ("data.mixture.films",)),
        (["stage=pt1", "+data.mixture.films=1"], ("data.mixture.films", "realtime")),
        (["stage=pt1", "data.datasets=[{name: x, path: y}]"], ("data.datasets[0].modality is not set",)),
        (["stage=pt1", "data.datasets=[{name: x, path: y, modality: film}]"], ("data.datasets[x].modality", "'film'")),
        (["stage=pt1", "data.datasets.0.weight=2"], ("data.datasets.0.weight", "give the list whole, as in data.datasets=[...]")),
        (["stage=pt1", "model.text.hidden_size=100"], ("text.hidden_size is 100", "num_attention_heads")),
        (["stage=pt1", "model.text.rope_scaling.factr=2"], ("did you mean model.text.rope_scaling.factor",)),
        (["stage=pt1", "launcher.kind=ssh"], ("launcher.kind is 'ssh'", "slurm")),
        (["stage=pt1", "train.steps"], ("train.steps", "key=value")),
        (["stage=pt1", "run_dir=${nowhere.x}"], ("nowhere.x",)),
    ],
)
def test_bad_input_is_one_helpful_sentence(overrides: list[str], words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        compose(overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_resolved_config_is_a_valid_input(tmp_path: Path) -> None:
    config = compose(["stage=sft_realtime", "parallel=tp2", "train.init_from=runs/sft_offline"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
    changed = load_config(tmp_path / "config.yaml", ["train.steps=3", "data.mixture.text=0.5"])
    assert (changed.train.steps, changed.data.mixture["text"], changed.stage) == (3, 0.5, config.stage)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("does not exist",)),
        ("a: [1", ("cannot be read as YAML",)),
        ("- 1", ("group of settings",)),
        ("run_dir: x\nmodel: {}\nstage: {name: pt1}\ncolour: red", ("colour",)),
        ("run_dir: x\nmodel: {}", ("stage is not set",)),
        ("run_dir: x\nmodel: {vission: {}}\nstage: {name: pt1}", ("did you mean model.vision",)),
    ],
)
def test_bad_config_file_is_named(text: str | None, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_config(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_users_own_groups(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("root: /somewhere\nseed: 7\n", encoding="utf-8")
    config = compose(["stage=pt1", "data=mine"], extra_dir=tmp_path)
    assert (config.data.root, config.data.seed) == ("/somewhere", 7)
    assert config.data.mixture["image"] == 0.79
    with pytest.raises(InputError, match=r"data=other is not known.*folders.*mine"):
        compose(["stage=pt1", "data=other"], extra_dir=tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        compose(["stage=pt1"], extra_dir=tmp_path / "none")


def test_what_was_composed_before_is_nobodys_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The groups are composed once for the same overrides; values, the environment and a user's own groups are not kept."""
    words = ["stage=pt1", "data=folders", "data.mixture.text=0.5"]
    monkeypatch.setenv("MOSS_DATA", "/one")
    first = compose(words)
    first.data.mixture["text"], first.model["text"]["hidden_size"] = 0.25, 1
    monkeypatch.setenv("MOSS_DATA", "/two")
    second = compose(words)
    assert (first.data.root, second.data.root) == ("/one", "/two")
    assert second.data.mixture["text"] == 0.5 and second.model["text"]["hidden_size"] > 1
    (tmp_path / "data").mkdir()
    for seed in (7, 8):
        (tmp_path / "data" / "mine.yaml").write_text(f"seed: {seed}\n", encoding="utf-8")
        assert compose(["stage=pt1", "data=mine"], extra_dir=tmp_path).data.seed == seed


def test_yaml_keeps_types() -> None:
    config = compose(["stage=pt1", "launcher=slurm"])
    plain = yaml.safe_load(to_yaml(config))
    assert plain["optimizer"]["eps"] == 1e-8
    assert plain["launcher"]["env"]["OMP_NUM_THREADS"] == "1"
    assert plain["launcher"]["slurm"]["requeue"] is True
