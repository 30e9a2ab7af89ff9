"""The measurement of sampling: its cases run, and it says what it needs."""

from __future__ import annotations

import pytest
import torch

from inference.benchmark.sampling import SETTINGS, VOCABULARY, cases, run
from model.errors import InputError


def test_every_setting_chooses_a_token_of_the_whole_vocabulary() -> None:
    chosen = [case for case in cases() if case.name.startswith("sampling") and case.rows == 1]
    assert len(chosen) == len(SETTINGS)
    for case in chosen:
        token = int(case.make(torch.device("cpu"))(0))
        assert 0 <= token < VOCABULARY and token != 128_011


def test_the_list_needs_no_gpu_and_the_measurement_one(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--dry-run"])
    assert len(capsys.readouterr().out.splitlines()) == len(cases())
    with pytest.raises(InputError, match="--out is None"):
        run([])
