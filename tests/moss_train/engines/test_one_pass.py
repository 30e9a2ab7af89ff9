"""Updates in one pass against megatron-core's: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.triton_forms import needs_triton, run_checks

FORMS = Path(__file__).resolve().parent / "forms"


@needs_triton
def test_interpreted() -> None:
    assert " passed" in run_checks(FORMS, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.gpu
def test_on_the_gpu() -> None:
    pytest.importorskip("transformer_engine")
    assert " passed" in run_checks(FORMS)
