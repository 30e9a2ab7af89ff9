"""Sound inputs from which damaged ones are made."""

from __future__ import annotations

import json
from typing import Any

from data_pipeline.shards.schema import sample_to_dict
from tests.data_pipeline.helpers import image_sample, realtime_sample, text_sample, video_sample

_CLIP = {"width": 64, "height": 48, "rate": 8.0, "duration": 4.0, "num_frames": 32}


def samples() -> list[bytes]:
    """Samples of every kind as the loader finds them."""
    values = [sample_to_dict(make(1)[1]) for make in (video_sample, image_sample, text_sample, realtime_sample)]
    for value in values:
        for media in value.get("media", []):
            media.update(_CLIP if media["type"] == "video" else {"width": 40, "height": 30})
    events = json.loads(json.dumps(values[0]))
    events["messages"][1]["content"] = "<|video|>one<|video|>two"
    events["messages"][0]["content"] = "what ?"
    events["media"][0] |= {"markers": "per_event", "frame_times": [1.0, 2.0]}
    dense = {"kind": "dense", "messages": [], "media": [{"type": "video", "file": "0.mp4", **_CLIP, "max_frames": 2}]}
    dense["dense"] = [[[0, 1], [2, 3]], [[0, 1], [2, 3]]]
    return _lines([*values, events, dense])


def annotations() -> list[bytes]:
    """Lines of an annotation file."""
    out = []
    for number, line in enumerate(samples()):
        value = json.loads(line)
        out.append({"key": f"k{number}", "files": {m["file"]: "clip.mp4" for m in value.get("media", [])}, **value})
    return _lines(out)


def rows() -> list[bytes]:
    """Files of rows in every format that is imported."""
    descriptor = json.dumps({"video_path": "a.mp4", "time_info": ["00:00", "00:01"]})
    events = json.dumps({"video_path": "a.mp4", "time_info": [{"end": "00:01"}, {"end": 2.5}]})
    talk = [{"role": "user", "content": "what ?"}, {"role": "assistant", "content": "red"}]
    said = "[Streaming Event Caption]"
    timed = [{"role": "user", "content": ""}, {"role": "assistant", "content": "<|silence|><|video|>a<|video|>b"}]
    llava = [{"from": "human", "value": "<image>\nwhat ?"}, {"from": "gpt", "value": "a kite"}]
    return _lines(
        [
            [{"messages": talk}],
            [{"messages": timed, "videos": [f"[RealTime QA][INFO]{descriptor}", "[RealTime QA][PLACEHOLDER]"]}],
            [{"messages": timed, "videos": [f"{said}[INFO]{events}", f"{said}[PLACEHOLDER]"]}],
            [{"id": "1", "image": "a.jpg", "conversations": llava}],
            [{"instruction": "what ?", "input": "", "output": "red", "history": [["a", "b"]]}],
        ]
    )


def registries() -> list[bytes]:
    """Registries of datasets beside a file `rows.json`."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    entry = {"file_name": "rows.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    return _lines([{"mine": entry, "hub": {"hf_hub_url": "a/b"}, "plain": {"file_name": "rows.json"}}])


def subtitles() -> list[bytes]:
    """SRT and VTT."""
    srt = "1\n00:00:00,000 --> 00:00:01,500\n<i>one</i>\n\n2\n00:00:01,500 --> 00:00:03,000\ntwo\nlines\n"
    vtt = (
        "WEBVTT\n\nNOTE words\n\n00:01.000 --> 00:02.000 align:start\none &amp; two\n\n"
        "id\n01:00:02.000 --> 01:00:04.000\n<c.a>x</c>\n"
    )
    return [srt.encode(), vtt.encode()]


def ledgers() -> list[bytes]:
    """Quarantine ledgers."""
    entry = {"kind": "bad", "dataset": "video", "shard": "shard-000000.tar", "key": "v1", "reason": "broken", "at": "decode"}
    return _lines([entry, {"dataset": "video", "key": "v2"}])


def _lines(values: list[Any]) -> list[bytes]:
    return [json.dumps(value, ensure_ascii=False).encode("utf-8") for value in values]
