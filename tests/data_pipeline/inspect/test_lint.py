"""Lint finds what the loader would leave out, and the oddities that it would not notice."""

from __future__ import annotations

import copy
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.inspect.entries import parts_of, read_entries
from data_pipeline.inspect.lint.decode_rules import decode_findings, watch
from data_pipeline.inspect.lint.lint import LintSettings, lint
from data_pipeline.inspect.lint.report import LintReport
from data_pipeline.inspect.lint.rules import ERROR, RULES
from data_pipeline.inspect.lint.text_rules import parse
from data_pipeline.loader import build_loader
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.parts import build_encoder
from data_pipeline.loader.plan_rules import plan_rules
from data_pipeline.packing.plan import Slot
from data_pipeline.schema import Sample
from data_pipeline.shards import sample_from_dict, sample_to_dict, write_samples
from data_pipeline.shards.energon_index import index_shards
from data_pipeline.shards.media_info import fill_info
from model.errors import InputError
from moss_train.config.schema import FrameConfig
from tests.data_pipeline.helpers import (
    data_config,
    grey_levels,
    image_sample,
    make_image,
    make_video,
    model_config,
    realtime_sample,
    stage_config,
    text_sample,
    tokenizer,
    video_sample,
    write_mixture,
)
from tests.data_pipeline.media.phone_clips import clip

TOKENIZER = tokenizer()
Stored = dict[str, tuple[dict[str, Any] | bytes, dict[str, bytes]]]
"""Key -> fields (or bytes that are no JSON) and members."""


def stored(made: tuple[str, Sample, dict[str, bytes]]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Fields and members as a shard would hold them, licence and source set."""
    _, sample, members = made
    for media in sample.media:
        fill_info(media, members[media.file], media.file)
    sample.license, sample.source = "CC0-1.0", "made for a test"
    return copy.deepcopy(sample_to_dict(sample)), dict(members)


def write_raw(folder: Path, samples: Stored, index: bool = True) -> None:
    """A shard of samples that the writer would refuse."""
    folder.mkdir()
    with webdataset.TarWriter(str(folder / "shard-000000.tar"), encoder=False, mtime=0) as tar:
        for key, (fields, members) in samples.items():
            text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
            tar.write({"__key__": key, "json": text, **members})
    if index:
        index_shards(folder, {"shard-000000.tar": "0"})


def changed(made: tuple[str, Sample, dict[str, bytes]], change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> Any:
    fields, members = stored(made)
    change(fields, members)
    return fields, members


def put(path: str, value: Any) -> Callable[[dict[str, Any], dict[str, bytes]], None]:
    """Sets a field such as `media.0.fps`."""

    def change(fields: Any, _: dict[str, bytes]) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        for step in way:
            fields = fields[step]
        fields[last] = value

    return change


def broken_end(_: dict[str, Any], members: dict[str, bytes]) -> None:
    content = members["0.mp4"]
    middle = content.index(b"mdat") + 8
    members["0.mp4"] = content[:middle] + bytes(len(content) // 3) + content[middle + len(content) // 3 :]


def faulty() -> tuple[Stored, dict[str, str]]:
    """Samples that the loader leaves out, and the rule that must say so; every third one is sound."""
    cases: dict[str, tuple[Any, str]] = {
        "json": ((b'{"kind": ', {}), "json"),
        "kind": (changed(text_sample(0), put("kind", "odd")), "schema"),
        "field": (changed(text_sample(0), put("colour", "red")), "schema"),
        "role": (changed(text_sample(0), put("messages.1.role", "robot")), "unknown-role"),
        "order": (changed(text_sample(0), put("messages.1.role", "user")), "role-order"),
        "markers": (changed(video_sample(1), put("messages.0.content", "what ?")), "marker-count"),
        "falling": (changed(realtime_sample(1), put("media.0.frame_times", [0, 2, 1, 3])), "frame-times"),
        "late": (changed(realtime_sample(2), put("media.0.frame_times", [0, 1, 2, 9])), "frame-times"),
        "fast": (changed(video_sample(2), put("media.0.fps", 99.0)), "frame-times"),
        "missing": (changed(video_sample(3), lambda _, members: members.clear()), "media-missing"),
        "noinfo": (changed(video_sample(4), lambda fields, _: fields["media"][0].pop("rate")), "no-media-info"),
        "broken": (changed(video_sample(5), broken_end), "undecodable"),
        "image": (changed(image_sample(6), lambda _, m: m.update({"0.jpg": b"no picture"})), "media-unreadable"),
        "silent": (changed(realtime_sample(6), put("messages.1.content", "<|video|>" * 4)), "no-learned-token"),
        "frames": (changed(realtime_sample(7), long_dialogue), "does-not-fit"),
    }
    samples: Stored = {}
    for number, (key, (content, _)) in enumerate(cases.items()):
        samples[key] = content
        if number % 3 == 0:
            samples[f"sound{number}"] = stored(video_sample(40 + number))
    return samples, {key: rule for key, (_, rule) in cases.items()}


def long_dialogue(fields: dict[str, Any], members: dict[str, bytes]) -> None:
    """More frames than a pack of the tests' stage holds."""
    members["0.mp4"] = make_video(grey_levels(14), rate=1)
    fields["media"][0].update(frame_times=list(range(14)), num_frames=14, duration=14.0)
    fields["messages"][1]["content"] = "<|video|><|silence|>" * 14


def check(folder: Path, **values: Any) -> LintReport:
    file = folder.parent / "tokenizer.json"
    TOKENIZER.save(file)
    defaults: dict[str, Any] = {"rules": plan_rules(stage_config()), "tokenizer": str(file), "examples": 100}
    return lint([str(folder)], LintSettings(**{**defaults, **values}))


def rules_by_key(report: LintReport) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in (f for findings in report.examples.values() for f in findings):
        found.setdefault(finding.key, set()).add(finding.rule)
    return found


def test_errors_are_exactly_the_samples_that_the_loader_leaves_out(tmp_path: Path) -> None:
    samples, expected = faulty()
    write_raw(tmp_path / "video", samples)
    found = rules_by_key(check(tmp_path / "video", decode=True))
    errors = {key: {r for r in rules if RULES[r].severity == ERROR} for key, rules in found.items() if key}
    assert {key: rules for key, rules in errors.items() if rules} == {key: {rule} for key, rule in expected.items()}

    data = data_config(tmp_path, ("video",), max_bad_samples=100, packing_buffer=4, shuffle_buffer=0)
    loader = build_loader(data, stage_config(), model_config(), TOKENIZER, split="validation", ledger=tmp_path / "q.jsonl")
    read = {key.removeprefix("video/") for batch in loader for key in batch.sample_keys if key}
    assert {entry["key"] for entry in loader.ledger.entries()} == set(expected)
    assert read == set(samples) - set(expected)


def test_sound_folders_have_no_findings(tmp_path: Path) -> None:
    write_mixture(tmp_path, count=3)
    for name in ("video", "image", "text", "realtime"):
        report = check(tmp_path / name, decode=True, realtime=True)
        odd = set(report.counts) - {
            "no-license",
            "no-source",
            "blank-media",
            "duplicate-media",
        }  # the pictures have a single colour
        assert report.samples == 3 and not odd and not report.failed


@pytest.mark.parametrize(
    ("made", "change", "rule"),
    [
        (text_sample(0), put("license", ""), "no-license"),
        (text_sample(0), put("source", " "), "no-source"),
        (text_sample(0), put("messages.0.content", "hi <|eot_id|> there"), "special-token"),
        (text_sample(0), put("messages.1.content", "quiet <|silence|>"), "special-token"),
        (text_sample(0), put("messages.1.content", " "), "empty-answer"),
        (text_sample(0), put("messages.1.content", "the red ball moves left . " * 60), "truncated"),
        (image_sample(0), put("messages.1.content", "<|image|>"), "empty-answer"),
        (image_sample(0), lambda _, m: m.update({"0.jpg": make_image(form="JPEG")}), "blank-media"),
        (video_sample(0), lambda _, m: m.update({"0.mp4": make_video([50] * 4)}), "still-clip"),
        (video_sample(0), lambda _, m: m.update({"1.mp4": b"unused"}), "media-unused"),
        (video_sample(0), put("media.0.num_frames", 3), "media-mismatch"),
        (video_sample(0), put("media.0.width", 640), "media-mismatch"),
        (realtime_sample(0), put("media.0.frame_times", [0, 1, 2, 3.5]), "realtime-grid"),
        (realtime_sample(0), put("messages.1.content", "<|video|><|video|>a<|video|>b<|video|>"), "realtime-gap"),
    ],
)
def test_oddities_are_found_by_their_rule(tmp_path: Path, made: Any, change: Any, rule: str) -> None:
    write_raw(tmp_path / "folder", {"odd": changed(made, change), "fine": stored(video_sample(9))})
    found = rules_by_key(check(tmp_path / "folder", decode=True, realtime=True))
    assert rule in found["odd"]
    assert "fine" not in found and RULES[rule].remedy


@pytest.mark.parametrize(("frames", "rule"), [(8, None), (7, "fewer-frames"), (3, "frames-missing")])
def test_missing_frames_are_an_error_only_where_the_loader_refuses(frames: int, rule: str | None) -> None:
    """The clip's header states eight frames; the loader repeats the last where one is missing."""
    _, sample, members = video_sample(0)
    members["0.mp4"] = make_video(grey_levels(frames))
    sample.media[0].num_frames = 8
    found = [name for name, _ in decode_findings(sample, members, [Slot(0, i, i / 8) for i in range(8)])]
    assert found == ([rule] if rule else [])


def test_the_reference_s_truncation_is_told(tmp_path: Path) -> None:
    """It cuts to the length without a pack's frames, though the sample would fit."""
    write_raw(tmp_path / "f", {"a": changed(text_sample(0), put("messages.1.content", "a blue flag appears . " * 12))})
    assert "truncated" not in check(tmp_path / "f").counts
    stage = stage_config(truncation="reference", max_frames_per_pack=60, frames=FrameConfig(fps=8.0, min_frames=1, max_frames=60))
    assert check(tmp_path / "f", rules=plan_rules(stage)).counts["truncated"] == 1


@pytest.mark.parametrize("values", [{}, {"truncation": "reference", "template": "mllama_pretrain", "label_eot_realtime": True}])
def test_rules_of_a_stage_are_the_loader_s(tmp_path: Path, values: dict[str, Any]) -> None:
    stage, ledger = stage_config(**values), Ledger(tmp_path / "q.jsonl", 1)
    encoder = build_encoder(data_config(tmp_path), stage, model_config(), TOKENIZER, ledger, 1, None)
    assert encoder.rules == plan_rules(stage)


def test_duplicates_are_told_apart(tmp_path: Path) -> None:
    clip, text = stored(video_sample(1)), stored(text_sample(1))
    other = copy.deepcopy(clip)
    other[0]["messages"][1]["content"] = "another answer"
    write_raw(tmp_path / "f", {"a": clip, "b": text, "c": other, "d": text})
    with tarfile.open(tmp_path / "f" / "shard-000001.tar", "w"):
        pass
    write_raw(tmp_path / "more", {"a": text})
    (tmp_path / "more" / "shard-000000.tar").rename(tmp_path / "f" / "shard-000001.tar")
    found = rules_by_key(check(tmp_path / "f", rules=None))
    assert found["a"] == {"duplicate-key", "duplicate-sample"}
    assert found["c"] == {"duplicate-media"} and found["d"] == {"duplicate-sample"}
    assert "b" not in found


def test_damaged_and_missing_shards_are_findings(tmp_path: Path) -> None:
    write_samples(tmp_path / "f", [text_sample(i) for i in range(12)], samples_per_shard=4)
    first, second, third = (tmp_path / "f" / f"shard-00000{i}.tar" for i in range(3))
    content = first.read_bytes()
    first.write_bytes(content[:2048] + b"x" * 512 + content[2560:])  # the header of the third member
    second.write_bytes(second.read_bytes()[:1500])
    third.unlink()
    report = check(tmp_path / "f", rules=None)
    assert report.counts["shard-unreadable"] == 2 and report.counts["summary-mismatch"] == 2
    assert report.samples == 3 and report.failed


def test_other_tools_shards_need_an_index_but_no_summary(tmp_path: Path) -> None:
    write_raw(tmp_path / "with", {"a": stored(text_sample(0))})
    write_raw(tmp_path / "without", {"a": stored(text_sample(0))}, index=False)
    assert set(check(tmp_path / "with").counts) == {"no-summary"}
    assert set(check(tmp_path / "without").counts) == {"no-summary", "no-index"}


def test_annotations_are_read_before_any_shard_exists(tmp_path: Path) -> None:
    fields, members = stored(video_sample(0))
    for name in ("rate", "duration", "num_frames", "width", "height"):
        del fields["media"][0][name]
    (tmp_path / "0.mp4").write_bytes(members["0.mp4"])
    lines = [
        json.dumps({"key": "good", "files": {"0.mp4": "0.mp4"}, **fields}),
        json.dumps({"key": "gone", "files": {"0.mp4": "1.mp4"}, **fields}),
        json.dumps({"key": "a.b", **stored(text_sample(0))[0]}),
        "[1, 2]",
        "{",
    ]
    (tmp_path / "set.jsonl").write_text("\n".join(lines) + "\n")
    report = check(tmp_path / "set.jsonl", decode=True)
    assert report.samples == 5
    assert rules_by_key(report) == {"gone": {"media-missing"}, "a.b": {"key"}, "": {"key", "schema", "json"}}


def test_every_line_of_a_long_annotation_file_is_read_once(tmp_path: Path) -> None:
    lines = [json.dumps({"key": f"é{i}" * (i % 3 + 1), **stored(text_sample(0))[0]}, ensure_ascii=False) for i in range(2500)]
    (tmp_path / "set.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = [e for part in parts_of(str(tmp_path / "set.jsonl")) for e in read_entries(part)]
    assert [e.key for e in found] == [json.loads(line)["key"] for line in lines]
    assert [e.where for e in found] == [f"set.jsonl line {i}" for i in range(1, 2501)]


def test_damaged_frames_are_an_error_since_training_refuses_them() -> None:
    fields = stored(video_sample(0))[0]
    whole = make_video([i * 3 for i in range(60)], width=320, height=240)
    sample = sample_from_dict(fields)
    first, last = whole.index(b"mdat") + 1000, whole.rindex(b"moov") - 200
    found = set()
    for step in range(12):
        damaged = bytearray(whole)
        damaged[first + step * (last - first) // 12] ^= 0x10
        found |= {rule for rule, _ in decode_findings(sample, {"0.mp4": bytes(damaged)}, None)}
    assert "damaged-frames" in found and RULES["damaged-frames"].severity == ERROR


def test_the_film_is_watched_and_not_its_cover() -> None:
    assert watch(clip(24, container="matroska", cover=True)).frames == 24


def test_processes_find_the_same(tmp_path: Path) -> None:
    write_samples(tmp_path / "f", [text_sample(i) for i in range(6)], samples_per_shard=2)
    alone = lint([str(tmp_path / "f")], LintSettings())
    together = lint([str(tmp_path / "f")], LintSettings(), workers=2)
    assert alone.to_dict() == together.to_dict() and alone.samples == 6


def test_reading_stops_at_the_bound_on_errors(tmp_path: Path) -> None:
    write_samples(tmp_path / "f", [text_sample(i) for i in range(6)], samples_per_shard=2)
    for i in range(3):
        (tmp_path / "f" / f"shard-00000{i}.tar").write_bytes(b"x" * 2048)
    report = lint([str(tmp_path / "f")], LintSettings(), max_errors=2)
    assert report.stopped and report.total(ERROR) == 2 and "stopped early" in report.summary()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 9) | st.sampled_from(["user", "<|video|>", "", "one"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type"]), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(
    made=st.sampled_from([text_sample(0), image_sample(1), video_sample(2), realtime_sample(3)]),
    field=st.sampled_from(
        ["kind", "messages", "media", "template", "license", "meta", "messages.0", "messages.1.role", "messages.1.content"]
        + ["media.0", "media.0.frame_times", "media.0.markers", "media.0.fps", "media.0.type", "dense"]
    ),
    value=VALUES,
)
def test_fields_have_a_fault_where_the_loader_refuses_them(made: Any, field: str, value: Any) -> None:
    values, _ = stored(copy.deepcopy(made))
    if field.startswith("media") and not values.get("media"):
        field = "kind"
    put(field, value)(values, {})
    sample, faults = parse(values, "the sample")
    try:
        sample_from_dict(values, "the sample")
    except InputError:
        assert sample is None and faults and all(RULES[rule].severity == ERROR for rule, _ in faults)
    except Exception:
        assert sample is None and faults
    else:
        assert sample is not None and not faults
