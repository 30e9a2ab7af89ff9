"""The update in Triton: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.triton_forms import needs_triton, run_checks

FORMS = Path(__file__).resolve().parent / "forms"


@needs_triton
def test_interpreted() -> None:
    assert " passed" in run_checks(FORMS, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.gpu
def test_on_the_gpu() -> None:
    assert " passed" in run_checks(FORMS)


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", [torch.bfloat16, torch.float32])
def test_transformer_engine_does_the_same(gradient: torch.dtype) -> None:
    """Five updates of 1e-3: a moment rounded to the neighbouring bf16 changes one by less than a hundredth."""
    pytest.importorskip("transformer_engine")
    from tests.moss_train.platform.measure_adam import agreement

    assert agreement(gradient) < 5e-5
