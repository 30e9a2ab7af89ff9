"""The choices of `lora=` fit the stages that they are meant for, at the published sizes."""

from __future__ import annotations

import pytest

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.lora.spec import MODULES, PARTS
from moss_train.config.compose import choices, compose
from moss_train.engines.adapters import lora_spec

FITTING = [
    ("pt2", "cross"), ("sft_offline", "text"), ("sft_offline", "cross"), ("sft_offline", "everywhere"), ("pt2", "decoder"),
    ("sft_realtime", "everywhere"), ("warm_text", "text"),
]  # fmt: skip


def test_no_choice_asks_for_no_adapters() -> None:
    config = compose(["stage=sft_realtime"])
    assert lora_spec(config.lora, config.stage) is None
    assert set(choices("lora")) == {"none", "text", "cross", "decoder", "everywhere"}


@pytest.mark.parametrize("model", ["11b", "90b", "tiny"])
@pytest.mark.parametrize(("stage", "lora"), FITTING)
def test_choices_fit_their_stages(stage: str, lora: str, model: str) -> None:
    config = compose([f"stage={stage}", f"lora={lora}", f"model={model}"])
    spec = lora_spec(config.lora, config.stage)
    assert spec is not None and spec.scale == 2.0
    spec.check(VideoMllamaConfig.from_dict(config.model))


def test_a_choice_for_another_stage_is_refused() -> None:
    config = compose(["stage=pt1", "lora=text"])
    spec = lora_spec(config.lora, config.stage)
    assert spec is not None
    with pytest.raises(InputError, match="it trains nothing with adapters"):
        spec.check(VideoMllamaConfig.from_dict(config.model))


@pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf"])
def test_a_scale_that_is_no_number_above_zero_is_refused(alpha: str) -> None:
    with pytest.raises(InputError, match=r"lora\.alpha is .*; it must be a number above 0"):
        compose(["stage=pt2", "lora=text", f"lora.alpha={alpha}"])


def test_every_target_has_layers_and_parts() -> None:
    assert set(MODULES) == set(PARTS)
