"""The comparison of many questions from one stream with one by one: it runs, agrees to the token, and predicts by counting."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from inference.benchmark.generation import fixed_length
from inference.benchmark.meter import DeviceMeter
from inference.benchmark.models import TINY, random_model
from inference.benchmark.questions import HEAD_ROWS, Questions, Sizes, agreement, predict, run, shallow
from inference.benchmark.roofline import Chip
from inference.engine import StepEngine
from model.errors import InputError


def test_the_command_writes_both_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "questions.json"
    small = ["--frames", "4", "--questions", "3", "--rows", "5", "--tokens", "4", "--runs", "2", "--exact-frames", "3"]
    run(["--model", "tiny", "--device", "cpu", "--out", str(out), *small, "--exact-layers", "3"])
    written = json.loads(out.read_text())
    for part, frames, layers, runs in (("exact", 3, 3, 1), ("timed", 4, 5, 2)):
        found = written[part]
        assert found["sizes"]["frames"] == frames and found["layers"]["decoder"] == layers and found["dtype"] == "float32"
        assert {name: len(values) for name, values in found["seconds"].items()} == {
            "forked": runs,
            "features kept": runs,
            "one by one": 1,
        }
        assert all(same == {"answers": 1.0, "tokens_before_a_difference": 1.0} for same in found["same"].values())
        assert found["first_differences"] == [] and set(found["ratio"]) == {"forked", "features kept"}
    assert "forked" in capsys.readouterr().out and written["surroundings"]["versions"]["torch"] == torch.__version__


def test_each_way_gives_what_it_is_called() -> None:
    engine = StepEngine(random_model(TINY, "cpu", torch.float32))
    encoded: list[int] = []
    encode = engine.model.encoder.encode
    engine.model.encoder.encode = lambda *a, **k: encoded.append(len(a[0])) or encode(*a, **k)  # type: ignore[func-returns-value,method-assign]
    sizes = Sizes(frames=3, questions=4, rows=5, tokens=3)
    questions = Questions(engine, sizes, DeviceMeter(torch.device("cpu")))
    for way, frames in ((questions.forked, 3), (questions.kept, 3), (questions.alone, 12)):
        encoded.clear()
        answers = way()
        assert sum(encoded) == frames and [len(answer) for answer in answers] == [3] * 4
    # A reply that nothing of this module has made.
    cache = engine.new_cache()
    rows = questions.prompts[2]
    (alone,) = engine.drive([fixed_length(cache, rows, 3, questions.meter, frames=questions.frames)])
    assert answers[2] == alone.tokens and len({tuple(rows) for rows in questions.prompts}) == 4
    # Greedy: what was said is likelier than any other token; against itself it is as likely.
    assert questions.margin(2, answers[2], (answers[2][-1] + 1) % 300) > 0 == questions.margin(2, answers[2], answers[2][-1])


def test_agreement_by_hand() -> None:
    # Answers 1 and 3 are equal; before a difference: 3 + 1 + 3 of 9 tokens.
    assert agreement([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[1, 2, 3], [4, 0, 6], [7, 8, 9]]) == {
        "answers": pytest.approx(2 / 3),
        "tokens_before_a_difference": pytest.approx(7 / 9),
    }


def test_prediction_by_hand() -> None:
    """The 11B model on a chip of 1e12 operations and 1e12 bytes a second; its figures are those of docs/benchmark-protocol.md."""
    from inference.benchmark.models import MODELS

    config, chip = MODELS["11b"], Chip("made up", bytes_per_second=1e12, flops=1e12, fp8_flops=1e12)
    sizes = Sizes(frames=256, questions=20, rows=320 - 256 - HEAD_ROWS, tokens=2)
    found = predict(config, chip, sizes)
    # 795.4e12 operations to the first token; a step reads 2 * 9.183e9 bytes of weights and 256 * 3.156 MiB of frames.
    once, step = 795.4, 0.0192
    assert found["one by one"] == pytest.approx(20 * (once + step), rel=2e-3)
    # Less encoding nineteen times: 256 frames of 3.061e12 operations, and keys and values of frames are made each time.
    prompt = found["features kept"] - once
    assert (
        19 * 5 < prompt < 19 * 12
    )  # 320 rows through 2 * 8.66e9 weights are 5.5e12, attention to 25,856 frame rows comes on top
    # Forked: one answer, 58 more rows for nineteen and one questions, and one step that reads the frames for each of twenty.
    rows = 20 * 58 * 2 * 8.66e9 / 1e12
    assert found["forked"] == pytest.approx(once + rows, rel=0.02)
    assert found["one by one"] / found["forked"] > 15


def test_fewer_layers_keep_the_widths() -> None:
    found = shallow(TINY, 2)
    assert found.text.num_hidden_layers == 2 and found.text.cross_attention_layers == (1,) and found.vision == TINY.vision
    assert dataclasses.replace(found.text, num_hidden_layers=5, cross_attention_layers=(1, 3)) == TINY.text
    with pytest.raises(InputError, match="--exact-layers is 1; the first cross layer is 1"):
        shallow(TINY, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens", "0"], "--tokens is 0; it must be at least 1"),
        (["--out", "nowhere/x.json"], "name a file in a folder that exists"),
        (["--dtype", "fp7"], "fp7"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(["--model", "tiny", "--device", "cpu", "--out", str(tmp_path / "x.json"), *words])
