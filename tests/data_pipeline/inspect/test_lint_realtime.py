"""Lint of timed dialogues: any regular grid, the grammar of the stream, and a generated dialogue's own rules."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.inspect.lint.lint import LintSettings, lint
from data_pipeline.inspect.lint.realtime_rules import realtime_findings
from data_pipeline.inspect.lint.rules import ERROR, RULES
from data_pipeline.loader.plan_rules import plan_rules
from data_pipeline.realtime.render import to_sample
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from data_pipeline.shards.annotations import Annotation, write_annotations
from data_pipeline.shards.schema import sample_from_dict, sample_to_dict
from tests.data_pipeline.helpers import grey_levels, make_video, stage_config
from tests.data_pipeline.realtime.dialogues import count, sound_dialogue, tokenizer

F, S = "<|video|>", "<|silence|>"


def found(sample: Sample, **values: Any) -> set[str]:
    return {rule for rule, _ in realtime_findings(sample, **values)}


def sample(*contents: str, times: list[float] | None = None) -> Sample:
    messages = [m for text in contents for m in (Message(role="user", content=""), Message(role="assistant", content=text))]
    times = times or [float(i) for i in range(sum(text.count(F) for text in contents))]
    media = Media(type="video", file="0.mp4", markers="per_frame", frame_times=times)
    return Sample(kind="realtime", messages=messages, media=[media])


@pytest.mark.parametrize(
    ("times", "odd"),
    [
        ([0.0, 1.0, 2.0, 3.0], False),
        ([0.0, 0.125, 0.25, 0.375], False),
        ([0.0, 0.333, 0.667, 1.0], False),
        ([0.0, 2.0, 4.0, 6.0], False),
        ([0.0], False),
        ([0.5, 1.0, 1.5, 2.0], False),
        ([256.0, 257.0, 258.0], False),
        ([85.333, 85.667, 86.0], False),
        ([0.25, 0.75, 1.25, 1.75], True),
        ([0.4, 1.4, 2.4], True),
        ([0.0, 1.0, 2.0, 3.5], True),
        ([0.0, 0.5, 1.5, 2.0], True),
    ],
)
def test_any_regular_grid_is_sound(times: list[float], odd: bool) -> None:
    assert found(sample(S + (F + S) * len(times), times=times)) == ({"realtime-grid"} if odd else set())


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (S + F + S + S, "realtime-grammar"),
        (S + F + S + "late words" + F + S, "realtime-grammar"),
        (S + S + F + S, "realtime-grammar"),
        (S + F + "a<|eot_id|>b" + S, "realtime-grammar"),
        (S + F + F + S, "realtime-gap"),
        ("At once." + S + F + S, "realtime-start"),
        (S + F + "It stops at 00:12." + S, "realtime-leak"),
        (S + F + "It stops at<|video|> 7 seconds." + S, "realtime-leak"),
        (S + F + "A ball." + S + F + S + F + "A ball." + S, "realtime-repeat"),
    ],
)
def test_faults_of_imported_dialogues(content: str, rule: str) -> None:
    assert found(sample(content)) == {rule}


def test_the_same_answer_to_two_questions_is_no_repetition() -> None:
    assert found(sample(S + F + "A ball." + S + F + S, S + F + "A ball." + S)) == set()


def test_generated_dialogues_are_held_to_their_own_rules() -> None:
    whole = 0
    for seed in range(30):
        made = sample_from_dict(sample_to_dict(to_sample(sound_dialogue(seed), count())))
        assert found(made) == found(made, tokenizer=tokenizer()) == set()
        said = [turn for turn in made.meta["dialogue"]["turns"] if turn.get("said")]
        if not said:
            continue
        whole += 1
        early = copy.deepcopy(made)
        turn = next(turn for turn in early.meta["dialogue"]["turns"] if turn.get("said"))
        turn["evidence"] = [turn["evidence"][0], turn["t"] + 1]
        assert found(early) == {"realtime-dialogue"}
        other = copy.deepcopy(made)
        other.messages[-1].content = other.messages[-1].content.replace(F + S, F + "boo" + S, 1)
        if other.messages != made.messages:
            assert "realtime-dialogue" in found(other)
    assert whole > 20
    broken = to_sample(sound_dialogue(0), count())
    broken.meta["dialogue"]["fps"] = "fast"
    ((rule, text),) = realtime_findings(broken)
    assert rule == "realtime-dialogue" and "field fps is 'fast'" in text
    moved = to_sample(sound_dialogue(0), count())
    moved.media[0].frame_times = [2 * t for t in moved.media[0].frame_times or []]
    assert "realtime-dialogue" in found(moved)


def test_slots_over_the_rate_are_found_with_the_tokenizer_of_a_stage() -> None:
    made = to_sample(sound_dialogue(0, 5.0), count())
    made.meta["dialogue"]["emission_tps"] = 0.5
    assert found(made) == set() and found(made, tokenizer=tokenizer()) == {"realtime-dialogue"}


def test_shards_and_annotations_are_read_alike(tmp_path: Path) -> None:
    sound, broken = sample(S + (F + S) * 4), sample(S + (F + S + S) + (F + S) * 3)
    entries = [(f"r{i}", one, {"0.mp4": make_video(grey_levels(4), rate=1)}) for i, one in enumerate((sound, broken))]
    write_samples(tmp_path / "shards", iter(copy.deepcopy(entries)))
    report = lint([str(tmp_path / "shards")], LintSettings(realtime=True))
    assert report.counts["realtime-grammar"] == 1 and report.failed
    assert report.examples["realtime-grammar"][0].key == "r1"
    assert "realtime-grammar" not in lint([str(tmp_path / "shards")], LintSettings()).counts

    lines = []
    for key, one, members in entries:
        (tmp_path / f"{key}.mp4").write_bytes(members["0.mp4"])
        lines.append(Annotation(key, one, {"0.mp4": tmp_path / f"{key}.mp4"}))
    write_annotations(tmp_path / "rows.jsonl", lines)
    assert lint([str(tmp_path / "rows.jsonl")], LintSettings(realtime=True)).counts["realtime-grammar"] == 1

    tokenizer().save(tmp_path / "tokenizer.json")
    settings = LintSettings(realtime=True, rules=plan_rules(stage_config()), tokenizer=str(tmp_path / "tokenizer.json"))
    assert lint([str(tmp_path / "shards")], settings).counts["realtime-grammar"] == 1


def test_the_reference_s_rows_have_no_error_and_no_warning(reference_data: Path) -> None:
    rows = json.loads((reference_data / "mllm_realtime_sft_demo.json").read_text())
    notes = 0
    for row in rows:
        rules = found(Sample(kind="realtime", messages=[Message(**message) for message in row["messages"]]))
        assert rules <= {"realtime-start"}
        notes += bool(rules)
    assert notes == 33


def test_severities() -> None:
    assert RULES["realtime-grammar"].severity == RULES["realtime-dialogue"].severity == ERROR
    assert all(rule.what and rule.remedy for rule in RULES.values())
