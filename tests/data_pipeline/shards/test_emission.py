"""The pace of timed dialogues is read off their tokens and times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import emission
from data_pipeline.shards.emission import measure_emission
from data_pipeline.shards.writer import write_samples
from data_pipeline.text.tokenizer import Tokenizer
from tests.data_pipeline.helpers import realtime_sample, text_sample
from tests.data_pipeline.helpers import tokenizer as make_tokenizer


def _dialogue(key: str, words: list[str], spacing: float, video: bytes) -> tuple[str, Sample, dict[str, bytes]]:
    """One frame for each text, silence behind it."""
    text = "".join(f"<|video|>{said}<|silence|>" for said in words)
    times = [i * spacing for i in range(len(words))]
    media = Media(type="video", file="0.mp4", markers="per_frame", frame_times=times)
    messages = [Message(role="user", content=""), Message(role="assistant", content=text)]
    return key, Sample(kind="realtime", messages=messages, media=[media]), {"0.mp4": video}


def test_the_rate_is_that_of_ninety_nine_slots_in_a_hundred(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    video = realtime_sample(0)[2]["0.mp4"]
    spoken, rushed = "the red ball", "the red ball moves and the red ball moves and the red ball"
    usual = [_dialogue(f"a{i}", [spoken, "", spoken, ""], 0.5, video) for i in range(60)]
    write_samples(tmp_path / "a", [*usual, _dialogue("b", [rushed, ""], 0.5, video), text_sample(1)])
    slot = len(tokenizer.encode(spoken)) + 1
    assert measure_emission([tmp_path / "a"], tokenizer) == {"tokens_per_frame": slot, "fps": 2.0}
    rushing = measure_emission([tmp_path / "a"], tokenizer, most_samples=0)
    assert rushing is None
    write_samples(tmp_path / "b", [_dialogue(f"b{i}", [rushed, ""], 0.5, video) for i in range(9)])
    both = measure_emission([tmp_path / "a", tmp_path / "b"], tokenizer)
    assert both == {"tokens_per_frame": len(tokenizer.encode(rushed)) + 1, "fps": 2.0}


def test_what_holds_no_timed_dialogue_or_cannot_be_read_has_no_rate(tmp_path: Path) -> None:
    tokenizer: Tokenizer = make_tokenizer()
    write_samples(tmp_path / "text", [text_sample(i) for i in range(3)])
    (tmp_path / "foreign").mkdir()
    write_samples(tmp_path / "damaged", [realtime_sample(i) for i in range(3)])
    next((tmp_path / "damaged").glob("**/*.tar")).write_bytes(b"no tar")
    assert measure_emission([tmp_path / name for name in ("text", "foreign", "damaged", "missing")], tokenizer) is None


def test_of_a_large_folder_only_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    video = realtime_sample(0)[2]["0.mp4"]
    write_samples(tmp_path / "late", [*[text_sample(i) for i in range(9)], realtime_sample(9)], samples_per_shard=3)
    assert measure_emission([tmp_path / "late"], tokenizer) is not None
    monkeypatch.setattr(emission, "LOOKED_AT", 9)
    assert measure_emission([tmp_path / "late"], tokenizer) is None
    slow, rushed = ["red", ""], ["red ball moves and the red ball", ""]
    long = [_dialogue("a", slow * 10, 1.0, video), *[_dialogue(f"b{i}", rushed, 1.0, video) for i in range(5)]]
    write_samples(tmp_path / "long", long)
    rates = []
    for most in (20, 21):
        monkeypatch.setattr(emission, "MOST_SLOTS", most)
        measured = measure_emission([tmp_path / "long"], tokenizer)
        assert measured is not None
        rates.append(measured["tokens_per_frame"])
    assert rates[0] == len(tokenizer.encode("red")) + 1 < rates[1]


def test_a_summary_without_shards_is_passed_over(tmp_path: Path) -> None:
    write_samples(tmp_path / "a", [realtime_sample(0)])
    (tmp_path / "a/summary.json").write_text(json.dumps({"samples": 1}))
    assert measure_emission([tmp_path / "a"], make_tokenizer()) is None
