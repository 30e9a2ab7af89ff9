"""Samples as JSON, and the rules that they keep."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards.schema import sample_from_dict, sample_to_dict
from model.errors import InputError
from tests.data_pipeline.helpers import image_sample, realtime_sample, text_sample, video_sample


@pytest.mark.parametrize("make", [image_sample, realtime_sample, text_sample, video_sample])
def test_a_sample_survives_json(make: Any) -> None:
    sample = make(3)[1]
    sample.meta = {"events": [1, 2]}
    assert sample_from_dict(json.loads(json.dumps(sample_to_dict(sample)))) == sample


def test_dense_samples_survive_json() -> None:
    sample = Sample(kind="dense", messages=[], media=[Media(type="video", file="0.mp4")], dense=[[[1, 2], [3, 4]]])
    assert sample_from_dict(json.loads(json.dumps(sample_to_dict(sample)))) == sample


def good() -> dict[str, Any]:
    return {
        "kind": "realtime",
        "messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "<|video|>a<|video|>b"}],
        "media": [{"type": "video", "file": "0.mp4", "markers": "per_frame", "frame_times": [0, 1]}],
    }


def test_the_example_is_sound() -> None:
    assert sample_from_dict(good()).media[0].frame_times == [0, 1]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "audio"}, "field kind is 'audio'; use one of text, image"),
    ({"kind": 5}, "field kind is 5; it must be text"),
    ({"colour": 1}, "unknown fields colour"),
    ({"messages": "hello"}, "field messages must be a list"),
    ({"messages": [{"role": "user"}]}, r"messages\[0\] must be an object of two texts"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "must alternate user, assistant"),
    ({"template": "chatml"}, "field template is 'chatml'"),
    ({"media": []}, r"has 2 <\|video\|> markers but its video media call for 0"),
    ({"media": [{"type": "video"}]}, r"media\[0\] lacks the field file"),
    ({"media": [{"type": "audio", "file": "0.mp3"}]}, "field type is 'audio'"),
    ({"media": [{"type": "video", "file": "a/0.mp4"}]}, "ending of a shard member"),
    ({"media": [{"type": "video", "file": "json"}]}, "field file is 'json'; it must be the ending of a shard member"),
    ({"media": [{"type": "video", "file": "0.JSON"}]}, "field file is '0.JSON'"),
    ({"media": [{"type": "video", "file": "__key__"}]}, "field file is '__key__'"),
    ({"media": [{"type": "video", "file": "0.mp4\n"}]}, "ending of a shard member"),
    ({"media": [{"type": "image", "file": "0.PNG"}, {"type": "image", "file": "0.png"}]}, "must differ"),
    ({"media": [{"type": "video", "file": "0.mp4", "markers": "some"}]}, "field markers is 'some'"),
    ({"media": [{"type": "video", "file": "0.mp4", "markers": "per_frame"}]}, "need frame_times"),
    ({"media": [{"type": "video", "file": "0.mp4", "markers": "per_frame", "frame_times": [1, 1]}]}, "must rise"),
    ({"media": [{"type": "video", "file": "0.mp4", "fps": -1}]}, "field fps is -1; it must be a positive number"),
    ({"media": [{"type": "image", "file": "0.png", "markers": "per_frame", "frame_times": [0]}]}, "are for videos only"),
    ({"media": [{"type": "image", "file": "0.png"}, {"type": "image", "file": "0.png"}]}, "must differ"),
    ({"kind": "dense"}, "needs the field dense"),
    ({"kind": "dense", "dense": [[[1, 2]]]}, "must be .frames..grid..grid."),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_broken_rules_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"shard 1 sample x.*{message}"):
        sample_from_dict({**good(), **change}, "shard 1 sample x")


def test_missing_fields_are_named() -> None:
    with pytest.raises(InputError, match="sample lacks the field messages"):
        sample_from_dict({"kind": "text"})


def test_too_few_markers_are_counted() -> None:
    sample = good()
    sample["messages"][1]["content"] = "<|video|>a"
    with pytest.raises(InputError, match=r"has 1 <\|video\|> markers but its video media call for 2"):
        sample_from_dict(sample)


def test_messages_keep_their_order() -> None:
    sample = Sample(kind="text", messages=[Message(role="user", content="a"), Message(role="assistant", content="b")])
    assert [m["role"] for m in sample_to_dict(sample)["messages"]] == ["user", "assistant"]
