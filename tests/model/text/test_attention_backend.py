"""Which attention a repeatable run's text takes, and models of both kinds in one process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from megatron.core.transformer.enums import AttnBackend

from model.text import attention_backend as module
from model.text.attention_backend import FLASH_4_VARIABLE, VARIABLES, attention_backend
from model.text.transformer_config import make_transformer_config
from tests.model.small import small_config


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*VARIABLES, FLASH_4_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "_told", [])
    yield
    os.environ.pop(FLASH_4_VARIABLE, None)
    torch.use_deterministic_algorithms(False)


def test_a_repeatable_run_takes_flash_attn_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "version", lambda name: {"flash-attn": "2.8.3"}[name])
    assert attention_backend(torch.bfloat16) == AttnBackend.auto
    torch.use_deterministic_algorithms(True)
    assert attention_backend(torch.bfloat16) == AttnBackend.flash
    assert attention_backend(torch.float32) == AttnBackend.auto
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert attention_backend(torch.bfloat16) == AttnBackend.auto


@pytest.mark.parametrize("found", [None, "4.0.0"])
def test_without_flash_attn_2_nothing_changes(monkeypatch: pytest.MonkeyPatch, found: str | None) -> None:
    def version(name: str) -> str:
        if found is None:
            raise module.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "version", version)
    torch.use_deterministic_algorithms(True)
    assert attention_backend(torch.bfloat16) == AttnBackend.auto


def test_what_a_model_before_has_set_does_not_bind_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "version", lambda name: "2.8.3")
    attention_backend(torch.bfloat16)
    os.environ["NVTE_FUSED_ATTN"] = "1"  # as megatron-core does
    attention_backend(torch.bfloat16)
    assert os.environ["NVTE_FUSED_ATTN"] == "1"
    torch.use_deterministic_algorithms(True)
    attention_backend(torch.bfloat16)
    assert "NVTE_FUSED_ATTN" not in os.environ


def test_a_word_of_the_users_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVTE_FUSED_ATTN", "0")
    attention_backend(torch.bfloat16)
    assert os.environ["NVTE_FUSED_ATTN"] == "0"


def test_text_does_without_flash_attn_4() -> None:
    make_transformer_config(small_config(), dtype="bf16")
    assert os.environ[FLASH_4_VARIABLE] == "0"


def test_what_the_user_says_of_flash_attn_4_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FLASH_4_VARIABLE, "1")
    attention_backend(torch.bfloat16)
    assert os.environ[FLASH_4_VARIABLE] == "1"
