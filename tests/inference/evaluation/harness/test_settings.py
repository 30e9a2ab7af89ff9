"""Model arguments and generation arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.harness.question import Decoding
from inference.evaluation.harness.settings import HarnessSettings
from inference.sampling import SamplingConfig
from model.errors import InputError


def test_arguments_come_as_text_or_numbers() -> None:
    given = {"pretrained": "hf", "fps": "0.5", "max_frames": 32.0, "min_frames": "none", "batch_size": "4", "precision": None}
    found = HarnessSettings.read(given)
    assert found == HarnessSettings(checkpoint="hf", fps=0.5, max_frames=32, batch=4)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "checkpoint is missing"),
        ({"checkpoint": "hf", "frames": 3}, "frames is unknown; use checkpoint, device"),
        ({"checkpoint": "hf", "pretrained": "hf"}, "pretrained says again what checkpoint is"),
        ({"checkpoint": "hf", "max_frames": "many"}, "max_frames is 'many'; it must be a whole number"),
        ({"checkpoint": "hf", "max_frames": 1.5}, "must be a whole number"),
        ({"checkpoint": "hf", "max_frames": 0}, "max_frames is 0; it must be at least 1"),
        ({"checkpoint": "hf", "fps": -1}, "fps is -1; it must be above 0"),
        ({"checkpoint": "hf", "fps": True}, "fps is True; it must be a number"),
        ({"checkpoint": "hf", "batch": "auto"}, "batch is 'auto'"),
        ({"checkpoint": "hf", "broken": "skip"}, "broken is 'skip'; use raise or empty"),
        ({"checkpoint": "hf", "min_frames": 9, "max_frames": 8}, "min_frames is 9, above max_frames 8"),
    ],
)
def test_wrong_arguments_are_one_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HarnessSettings.read(given)


def test_the_system_text_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Look closely.\n")
    assert HarnessSettings(checkpoint="hf", system=str(tmp_path / "system.txt")).system_given() == "Look closely."
    assert HarnessSettings(checkpoint="hf", system="none").system_given() == "none"
    assert HarnessSettings(checkpoint="hf").system_given() is None


@pytest.mark.parametrize(
    ("given", "sampling"),
    [
        (None, SamplingConfig()),
        ({"temperature": 0, "top_p": 0, "num_beams": 1}, SamplingConfig()),
        ({"temperature": 0.7, "do_sample": False}, SamplingConfig()),
        ({"do_sample": True}, SamplingConfig(do_sample=True, seed=5)),
        (
            {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
            SamplingConfig(do_sample=True, temperature=0.7, top_k=50, top_p=0.9, seed=5),
        ),
        ({"temperature": None, "top_p": None, "do_sample": False}, SamplingConfig()),
        ({"repetition_penalty": 1.2}, SamplingConfig(repetition_penalty=1.2)),
    ],
)
def test_how_answers_are_sampled(given: dict[str, Any] | None, sampling: SamplingConfig) -> None:
    assert Decoding.read(given, max_new_tokens=9, seed=5).sampling == sampling


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"num_beams": 5}, "num_beams is 5"),
        ({"until": [3]}, "until is"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": "8"}, "must be a number"),
        ({"temperature": -1.0}, "temperature is -1"),
    ],
)
def test_wrong_generation_arguments(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Decoding.read(given, max_new_tokens=9, seed=0)


def test_an_answer_ends_before_the_first_of_its_ends() -> None:
    decoding = Decoding.read({"until": ["\n\n", "ASSISTANT:", ""]}, max_new_tokens=9, seed=0)
    assert decoding.cut(" B. ASSISTANT: x\n\ny") == "B."
    assert decoding.cut("a\nb") == "a\nb"
    assert Decoding.read({"until": "."}, max_new_tokens=9, seed=0).cut("B. c") == "B"
