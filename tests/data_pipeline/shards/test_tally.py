"""Counting samples: parts add up to the whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards.distribution import Distribution
from data_pipeline.shards.tally import OTHERS, Tally, shape
from tests.data_pipeline.helpers import image_sample, realtime_sample, text_sample, video_sample


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.integers(0, 60))
def test_parts_add_up(values: list[float], cut: int) -> None:
    whole, first, second = Distribution(), Distribution(), Distribution()
    for index, value in enumerate(values):
        whole.add(value)
        (first if index < cut else second).add(value)
    first.merge(Distribution.from_dict(json.loads(json.dumps(second.to_dict()))))
    assert first.counts == whole.counts and first.total == pytest.approx(whole.total)
    assert (first.least, first.most, first.count) == (min(values), max(values), len(values))
    ordered = sorted(values)
    for share in (0.1, 0.5, 0.9, 1.0):
        exact = ordered[max(0, -(-int(share * 1000) * len(values) // 1000) - 1)]
        assert first.quantile(share) == pytest.approx(exact, rel=0.06)


def test_tallies_of_shards_add_up() -> None:
    samples = [make(i)[1] for i in range(3) for make in (image_sample, realtime_sample, text_sample, video_sample)]
    whole, merged = Tally(), Tally()
    for sample in samples:
        whole.add(sample, {"0.mp4": 10, "0.jpg": 20})
        part = Tally()
        part.add(sample, {"0.mp4": 10, "0.jpg": 20})
        merged.merge(Tally.from_dict(json.loads(json.dumps(part.to_dict()))))
    assert merged.to_dict() == whole.to_dict() and whole.samples == 12 and whole.media_bytes == 6 * 10 + 3 * 20
    assert whole.statistics()["shapes"] == {"image": 3, "realtime": 3, "text": 3, "video": 3}
    assert whole.statistics()["text_characters"]["min"] == len("a blue flag 0")


def test_licences_of_files_are_counted_too() -> None:
    tally = Tally()
    media = [Media(type="image", file="0.png", license="CC0"), Media(type="image", file="1.png")]
    tally.add(Sample(kind="image", messages=[], media=media, license="MIT"), {})
    tally.add(Sample(kind="text", messages=[]), {})
    assert tally.licenses == {"CC0": 1, "MIT": 1, "": 1}


def test_many_sources_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipeline.shards.tally.MOST_SOURCES", 3)
    tally = Tally()
    for index in range(10):
        tally.add(Sample(kind="text", messages=[], source=f"s{index % 5}"), {})
    assert tally.sources == {"s0": 2, "s1": 2, "s2": 2, OTHERS: 4}


@pytest.mark.parametrize(
    ("text", "types", "expected"),
    [
        ("<|image|> <|image|>\nwhich ?", "ii", "multi_image"),
        ("<|image|>one<|image|>two", "ii", "interleaved"),
        ("<|video|><|video|>both", "vv", "multi_video"),
        ("<|image|><|video|>both", "iv", "interleaved"),
        ("<|video|>one", "v", "video"),
    ],
)
def test_shapes(text: str, types: str, expected: str) -> None:
    media = [Media(type="image" if t == "i" else "video", file=f"{n}.x") for n, t in enumerate(types)]
    sample = Sample(
        kind="video", messages=[Message(role="user", content=text), Message(role="assistant", content="a")], media=media
    )
    assert shape(sample) == expected


def test_images_in_two_turns_are_interleaved() -> None:
    turns = [Message(role=r, content=c) for r, c in (("user", "<|image|>"), ("assistant", "a"), ("user", "<|image|>"))]
    media = [Media(type="image", file=f"{n}.png") for n in range(2)]
    assert shape(Sample(kind="image", messages=turns, media=media)) == "interleaved"
