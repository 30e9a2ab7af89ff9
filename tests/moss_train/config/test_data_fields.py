"""Values of the data, storage and stage groups that no run can work with are refused by the name of their field."""

from __future__ import annotations

from typing import Any

import pytest

from data_pipeline.text.template import TEMPLATES
from model.errors import InputError
from moss_train.config import schema
from moss_train.config.schema import DataConfig, DatasetConfig, FrameConfig, StageConfig, StorageConfig

NAN, INFINITE = float("nan"), float("inf")


def dataset(name: str = "clips", **values: Any) -> DatasetConfig:
    return DatasetConfig(**{"name": name, "path": "clips", "modality": "video", **values})


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, INFINITE, 1e7])
@pytest.mark.parametrize(
    ("group", "field"),
    [
        (DataConfig, "data.worker_timeout_seconds"),
        (StorageConfig, "data.storage.timeout_seconds"),
        (StorageConfig, "data.storage.backoff_seconds"),
    ],
)
def test_waits_are_finite(group: Any, field: str, value: float) -> None:
    with pytest.raises(InputError) as refusal:
        group(**{field.rpartition(".")[2]: value})
    assert str(refusal.value) == f"{field} is {value}; it must be above 0 and at most 1000000"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"global_data_workers": 0}, "data.global_data_workers is 0; it must be at least 1"),
        ({"worker_processes": -1}, "data.worker_processes is -1; it must be at least 0"),
        ({"prefetch": 0}, "data.prefetch is 0; it must be at least 1"),
        ({"shuffle_buffer": -1}, "data.shuffle_buffer is -1; it must be at least 0"),
        ({"packing_buffer": 0}, "data.packing_buffer is 0; it must be at least 1"),
        ({"samples_per_pack": 0}, "data.samples_per_pack is 0; it must be at least 1"),
        ({"max_bad_samples": -1}, "data.max_bad_samples is -1; it must be at least 0"),
        ({"mixture": {"video": NAN}}, "data.mixture.video is nan; it must be at least 0.0"),
        (
            {"datasets": [dataset(), dataset("texts"), dataset()]},
            "data.datasets has several datasets of the name 'clips'; name each differently",
        ),
        (
            {"validation": [dataset(repeats=2)]},
            "data.validation[clips].repeats is 2; held-out data are read once, leave it out",
        ),
    ],
)
def test_data(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as refusal:
        DataConfig(**values)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight", -1.0), ("weight", NAN), ("repeats", 0), ("max_samples", 0), ("max_bad_samples", -1), ("modality", "film")],
)
def test_a_dataset(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^data\.datasets\[clips\]\.{field} is {value!r}; "):
        dataset(**{field: value})


def test_a_dataset_has_a_name() -> None:
    with pytest.raises(InputError, match="with the path clips has no name; give it one"):
        dataset("")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("template", "llama"),
        ("truncation", "none"),
        ("max_frames_per_pack", -1),
        ("realtime_jitter_prob", 1.5),
        ("realtime_jitter_prob", NAN),
        ("warmup_ratio", 2.0),
        ("silence_token_weight", -1.0),
        ("dense_classes", 0),
    ],
)
def test_a_stage(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^stage\.{field} is {value!r}; "):
        StageConfig(**{"name": "pt2", field: value})


@pytest.mark.parametrize("value", [0.0, NAN, INFINITE])
def test_the_rate_of_frames_is_a_number(value: float) -> None:
    with pytest.raises(InputError, match=rf"^stage\.frames\.fps is {value}; it must be above 0"):
        FrameConfig(fps=value)


def test_templates_are_those_of_the_data() -> None:
    assert schema.TEMPLATES == TEMPLATES
