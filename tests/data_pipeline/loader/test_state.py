"""States of replicas made one, and states that are refused."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.loader import build_loader
from data_pipeline.loader.state import merge_states
from data_pipeline.shards import write_samples
from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from model.errors import InputError
from moss_train.config.schema import DataConfig, StageConfig
from tests.data_pipeline.helpers import TEXTS, VOCABULARY, data_config, model_config, stage_config, text_sample, tokenizer

TOKENIZER = tokenizer()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_samples(folder / "text", (text_sample(i) for i in range(12)), samples_per_shard=4)
    return folder


def config(root: Path) -> tuple[DataConfig, StageConfig]:
    return data_config(root, ("text",), global_data_workers=4), stage_config()


def states(root: Path, replicas: int = 2, count: int = 1) -> list[dict[str, Any]]:
    data, stage = config(root)
    found = []
    for rank in range(replicas):
        loader = build_loader(data, stage, model_config(), TOKENIZER, rank=rank, world_size=replicas)
        for _ in range(count):
            next(loader)
        found.append(loader.state_dict())
    return found


def test_a_merged_state_holds_every_reader_and_what_was_given(root: Path) -> None:
    merged = merge_states(states(root, count=3))
    assert list(merged["readers"]) == [0, 1, 2, 3] and merged["micro_batches"] == 6
    assert all(isinstance(state, bytes) for state in merged["readers"].values())
    assert merge_states([merged]) == merged
    assert merge_states(states(root, 4, 0))["readers"] == dict.fromkeys(range(4))


def _other_step(parts: list[dict[str, Any]]) -> None:
    parts[1]["micro_batches"] += 2


def _twice(parts: list[dict[str, Any]]) -> None:
    parts[1]["readers"][2] = b""


def _lost(parts: list[dict[str, Any]]) -> None:
    del parts[1]["readers"][3], parts[0]["readers"][0]


def _other_seed(parts: list[dict[str, Any]]) -> None:
    parts[0]["identity"]["data.seed"] = 7


def _first_version(parts: list[dict[str, Any]]) -> None:
    parts[1] = {"version": 1, "data.seed": 42, "energon": None}


def _nothing(parts: list[dict[str, Any]]) -> None:
    parts[0] = None  # type: ignore[assignment,call-overload]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_other_step, r"mixes files of different steps \(2 and 4 micro-batches given\)"),
        (_twice, "holds reader 2 twice"),
        (_lost, "lacks readers 0, 3 of 4"),
        (_other_seed, "differently configured runs"),
        (_first_version, r"another version of the loader \(1, this one reads 2\)"),
        (_nothing, r"another version of the loader \(None"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    root: Path, damage: Callable[[list[dict[str, Any]]], None], sentence: str
) -> None:
    parts = copy.deepcopy(states(root))
    damage(parts)
    with pytest.raises(InputError, match=f"^SAVED .*{sentence}"):
        merge_states(parts, "SAVED")


def test_a_part_alone_is_refused(root: Path) -> None:
    data, stage = config(root)
    loader = build_loader(data, stage, model_config(), TOKENIZER, rank=1, world_size=2)
    with pytest.raises(InputError, match=r"lacks readers 1, 3 of 4; give the merged states"):
        loader.load_state_dict(states(root)[0])
    next(loader)
    with pytest.raises(RuntimeError, match="before the first micro-batch"):
        loader.load_state_dict(merge_states(states(root)))


def test_a_state_that_energon_cannot_take_is_refused(root: Path) -> None:
    data, stage = config(root)
    state = merge_states(states(root))
    state["readers"][2] = b"\x80\x05nothing"
    loader = build_loader(data, stage, model_config(), TOKENIZER)
    loader.load_state_dict(state)
    with pytest.raises(InputError, match=r"saved place of reader 2 does not fit Energon \d"):
        next(loader)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.global_data_workers", 2),
        ("data.seed", 7),
        ("data.shuffle_buffer", 5),
        ("data.packing_buffer", 7),
        ("data.samples_per_pack", 2),
        ("stage.sequence_length", 64),
        ("stage.max_frames_per_pack", 4),
        ("stage.truncation", "reference"),
        ("stage.template", "mllama_pretrain"),
        ("stage.realtime_jitter_prob", 0.1),
        ("stage.label_eot_realtime", True),
        ("stage.frames.fps", 2.0),
        ("stage.frames.min_frames", 2),
        ("stage.frames.max_frames", 9),
        ("data.datasets[text].repeats", 3),
        ("data.datasets[text].max_samples", 11),
    ],
)
def test_what_determines_the_order_must_stay(root: Path, field: str, value: Any) -> None:
    state = merge_states(states(root))
    data, stage = config(root)
    place: Any = {"data": data, "stage": stage}
    *path, name = field.replace("[text]", ".0").split(".")
    for step in path:
        place = place[int(step)] if step == "0" else place[step] if isinstance(place, dict) else getattr(place, step)
    setattr(place, name, value)
    with pytest.raises(InputError) as refusal:
        build_loader(data, stage, model_config(), TOKENIZER).load_state_dict(state)
    was = state["identity"][field]
    assert f"made with {field} = {was}, now it is {value};" in str(refusal.value)


def test_another_tokenizer_image_size_or_set_of_folders_is_refused(root: Path, tmp_path: Path) -> None:
    state = merge_states(states(root))
    data, stage = config(root)
    other = train_demo_tokenizer([text.upper() for text in TEXTS], VOCABULARY)
    with pytest.raises(InputError, match=r"data\.tokenizer = vocabulary \w+, now it is vocabulary"):
        build_loader(data, stage, model_config(), other).load_state_dict(state)
    with pytest.raises(InputError, match=r"model\.vision\.image_size = 64, now it is 32"):
        build_loader(data, stage, model_config(image_size=32), TOKENIZER).load_state_dict(state)
    data.datasets[0].name = "words"
    with pytest.raises(InputError, match=r"data\.datasets = text, now it is words"):
        build_loader(data, stage, model_config(), TOKENIZER).load_state_dict(state)
    write_samples(tmp_path / "text", (text_sample(i) for i in range(1, 13)), samples_per_shard=4)
    data, stage = config(tmp_path)
    with pytest.raises(InputError, match=r"data\.datasets\[text\]\.digest = "):
        build_loader(data, stage, model_config(), TOKENIZER).load_state_dict(state)


def test_where_and_how_the_data_are_read_may_change(root: Path, tmp_path: Path) -> None:
    state = merge_states(states(root, count=2))
    shutil.copytree(root / "text", tmp_path / "elsewhere" / "text")
    data, stage = config(tmp_path / "elsewhere")
    data.worker_processes, data.prefetch, data.max_bad_samples = 2, 5, 7
    data.decode.skip_non_reference = True
    moved, stayed = (build_loader(d, stage, model_config(), TOKENIZER) for d in (data, config(root)[0]))
    for loader in (moved, stayed):
        loader.load_state_dict(state)
    assert [next(moved).sample_keys for _ in range(6)] == [next(stayed).sample_keys for _ in range(6)]
    assert moved.micro_batches_given == stayed.micro_batches_given == 10  # type: ignore[attr-defined]
    moved.close()


def test_the_loader_tells_the_size_of_a_pass(root: Path) -> None:
    data, stage = config(root)
    assert build_loader(data, stage, model_config(), TOKENIZER).dataset_sizes == {"text": 12}  # type: ignore[attr-defined]
