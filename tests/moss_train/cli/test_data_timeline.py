"""`moss data timeline`, run as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.timeline.normalise import normalise
from data_pipeline.timeline.values import read_timelines
from moss_train.cli.main import main

TABLE = """video,duration,begin,end,label,subject,value
v,9,0,,,light,red
v,9,4,,,light,green
v,9,2,3,a bus leaves,,
v,9,x,3,a,,
"""


def test_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    out = tmp_path / "new" / "t.jsonl"
    assert main(["data", "timeline", str(tmp_path / "a.csv"), str(out), "--kind", "events", "--license", "CC0"]) == 0
    (timeline,) = read_timelines(out)
    assert normalise(timeline) == timeline and timeline.license == "CC0"
    printed = capsys.readouterr().out
    for part in (
        "1 videos, 9 s, in",
        "segments: 3 (2 state, 1 action)",
        "changes: 2 (1 leave, 1 state)",
        "left out: 1 rows or parts of rows",
        "a.csv row 4 field begin is 'x'",
    ):
        assert part in printed


def test_bundled_clips_raw_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, again = tmp_path / "raw.jsonl", tmp_path / "again.jsonl"
    assert main(["data", "timeline", "bundled", str(raw), "--kind", "clips", "--raw"]) == 0
    assert main(["data", "timeline", str(raw), str(again), "--kind", "timelines"]) == 0
    assert [t.id for t in read_timelines(again)] == ["rabbit", "towers_green", "tower_white"]
    assert list(read_timelines(again)) == [normalise(t) for t in read_timelines(raw)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--strict"], "a.csv row 4 field begin is 'x'"),
        (["--media-root", "/none/at/all"], "there is no such folder"),
        (["--level", "scene"], "level is 'scene'"),
        (["--split-key", "channel"], "lacks the field channel"),
    ],
)
def test_one_sentence_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    assert main(["data", "timeline", str(tmp_path / "a.csv"), str(tmp_path / "t.jsonl"), "--kind", "events", *more]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_nothing_usable_names_the_first_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"video": "v", "question": "who?"}]))
    assert main(["data", "timeline", str(tmp_path / "a.json"), str(tmp_path / "t.jsonl"), "--kind", "qa"]) == 2
    said = capsys.readouterr().err
    assert "the last fault: a.json row 1 lacks the field answer" in said
    where = [str(tmp_path / "a.json"), str(tmp_path / "t.jsonl")]
    assert main(["data", "timeline", *where, "--kind", "qa", "--level", "event"]) == 2
    assert "no effect with --kind qa" in capsys.readouterr().err
