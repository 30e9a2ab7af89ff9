"""What a precision changes: the figures by hand, and the command that prints them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from inference.engine import StepEngine
from inference.model import load_model
from inference.quantize.effect import Case, compare, decode, follow
from model.errors import InputError
from moss_train.cli.main import main
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = tiny_tokenizer()
    return write_checkpoint(tmp_path_factory.mktemp("effect") / "tiny", tiny_config(tokenizer.vocab_size), tokenizer=tokenizer)


def test_figures_by_hand() -> None:
    whole = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0], [1.0, 0.0]])
    narrow = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [0.0, 1.0]])
    found = compare("x", whole, narrow)
    # The second row: probabilities 3/4 and 1/4 against two halves; the third: e/(1+e) against its mirror image.
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    p = math.e / (1 + math.e)
    assert found.kl_mean == pytest.approx((kl + (2 * p - 1)) / 3, rel=1e-5)
    assert found.kl_most == pytest.approx(2 * p - 1, rel=1e-5)
    assert found.cosine_least == pytest.approx(-1) and found.cosine_mean == pytest.approx(0.0, abs=1e-12)
    assert found.greedy_agreement == pytest.approx(2 / 3) and found.first_difference == 2 and found.tokens == 3
    same = compare("x", whole, whole)
    assert (same.kl_most, same.greedy_agreement, same.first_difference) == (0.0, 1.0, None)


def test_following_its_own_reply_changes_nothing(folder: Path) -> None:
    engine = StepEngine(load_model(folder))
    image = engine.image_id
    frames = torch.randint(0, 256, (2, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    case = Case("x", [1, image, image, 4], frames)
    reply = decode(engine, case, 5)
    assert len(reply.tokens) == 5 and reply.logits.argmax(-1).tolist() == reply.tokens
    assert torch.equal(follow(engine, case, reply.tokens), reply.logits)
    narrow = follow(StepEngine(load_model(folder, recipe="fp8")), case, reply.tokens)
    found = compare("x", reply.logits, narrow)
    assert 0 < found.kl_mean and 0.9 < found.cosine_least < 1


def test_the_command_measures_each_recipe(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    arguments = ["--recipe", "bf16", "--recipe", "fp8", "--frames", "2", "--tokens", "3", "--device", "cpu"]
    arguments += ["--prompt", "red ball", "--json", str(out), "--as-on-gpu"]
    assert main(["verify", "precision", str(folder), *arguments]) == 0
    content = json.loads(out.read_text())
    whole, narrow = content["recipes"]
    assert whole["decoder_bytes"] == content["decoder_bytes"] > narrow["decoder_bytes"]
    assert whole["effects"][0]["kl_most"] == 0.0 and narrow["effects"][0]["kl_most"] > 0
    assert whole["effects"][0]["tokens"] == 3
    printed = capsys.readouterr().out
    assert "fp8 weights, keys and values of frames in bf16" in printed and "red ball" in printed
    assert main(["verify", "precision", str(folder), "--recipe", "bf16", "--cross-kv", "fp8", *arguments[4:]]) == 0
    kept = json.loads(out.read_text())["recipes"][0]
    assert kept["decoder_bytes"] == content["decoder_bytes"] and kept["effects"][0]["kl_most"] > 0


def test_the_command_takes_random_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "precision", "random:tiny", "--frames", "1", "--tokens", "2", "--device", "cpu"]) == 0
    assert "random tokens 3" in capsys.readouterr().out
    for name, more, message in (
        ("random:7b", [], "use random:11b or random:tiny"),
        ("random:tiny", ["--prompt", "x"], "tokenizer"),
    ):
        assert main(["verify", "precision", name, *more]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "int4"], "precision is 'int4'"),
        (["--tokens", "0"], "--tokens is 0"),
        (["--frames", "-1"], "--frames is -1"),
        (["--cross-kv", "fp4"], "--cross-kv is 'fp4'"),
        (["--json", "/nowhere/at/all.json"], "folder does not exist"),
        (["--video", "nothing.mp4"], "nothing.mp4"),
    ],
)
def test_bad_arguments_end_with_one_sentence(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "precision", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    config = tiny_config(vocab_size=40)
    tensors = random_tensors(config)
    tensors["language_model.lm_head.weight"][3, 0] = float("nan")
    engine = StepEngine(load_model(write_checkpoint(tmp_path / "nan", config, tensors=tensors)))
    with pytest.raises(InputError, match="logits of 'x' are not finite"):
        decode(engine, Case("x", [1, 2]), 2)
