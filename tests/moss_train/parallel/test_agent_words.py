"""What `python -m moss_train.parallel.agent` refuses before it starts anything."""

from __future__ import annotations

import pytest

from moss_train.guards.cause import EXIT_BAD_INPUT
from moss_train.parallel.agent import main


@pytest.mark.parametrize("seconds", ["10m", "-1", "1.5", ""])
def test_a_mistyped_time_to_save_is_one_sentence(
    seconds: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", seconds)
    assert main(["--standalone", "--nproc-per-node", "1", "-m", "nothing"]) == EXIT_BAD_INPUT
    said = f"moss: error: TORCH_ELASTIC_SHUTDOWN_TIMEOUT is '{seconds}'; use a whole number of seconds, or unset it\n"
    assert capfd.readouterr().err == said
