"""Our own JSON lines through the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.timeline.timeline import Segment, Timeline
from data_pipeline.timeline.values import write_timelines
from model.errors import InputError
from tests.data_pipeline.timeline.readers.helpers import read


def test_own(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    made = Timeline(id="v", duration=4.0, segments=(Segment(begin=0.0, end=None, text="a"),), video="a.mp4", license="CC0")
    path = tmp_path / "t.jsonl"
    write_timelines(path, [made])
    (found,) = read("timelines", path, source="mine")
    assert (found.segments, found.video, found.license, found.source) == (made.segments, str(tmp_path / "a.mp4"), "CC0", "mine")


def test_faults(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": "v", "duration": 4}\n{"id": "v", "duration": 4}\n{"id": "w"}\n')
    said: list[str] = []
    assert [t.id for t in read("timelines", path, on_fault=said.append)] == ["v"]
    assert "line 2 field id is 'v', as of an earlier line" in said[0] and "line 3 lacks the field duration" in said[1]
    with pytest.raises(InputError, match="line 2"):
        read("timelines", path)
