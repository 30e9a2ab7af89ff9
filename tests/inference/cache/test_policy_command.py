"""Policies on the streaming command."""

from __future__ import annotations

import pytest

from inference.realtime_streaming_infer import main
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("command")
    write_checkpoint(folder, tiny_config(), tokenizer=tiny_tokenizer(), stage="sft_realtime")
    return ["--checkpoint", str(folder), "--source", "world:3", "--virtual_clock", "--max_new_tokens", "120"]


def test_a_stream_runs_under_a_policy(stream: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    policy = ["--cross_policy", "pooled:3:1:1", "--text_window", "0:64", "--position_limit", "700"]
    assert main([*stream, *policy]) == 0
    assert "end: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cross_policy", "window"], "--cross_policy is 'window'; write it as window:FRAMES"),
        (["--cross_policy", "window:3", "--text_window", "0:64", "--position_limit", "200"], "position_limit is 200, but"),
        (["--text_window", "0:64", "--position_limit", "2000"], "choose another --cross_policy than full"),
    ],
)
def test_a_policy_that_cannot_be_is_one_sentence(
    stream: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([*stream, *arguments]) == 2
    assert message in capsys.readouterr().err
