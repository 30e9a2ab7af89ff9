"""Clips with lines by second, and those that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipeline.assets.real import entries
from data_pipeline.timeline.normalise import normalise
from data_pipeline.timeline.timeline import check_timeline
from model.errors import InputError
from tests.data_pipeline.timeline.readers.helpers import read, told, write


def test_bundled_clips() -> None:
    found = read("clips", Path("bundled"))
    clips = [e for e in entries() if e["file"].endswith(".mp4")]
    assert [(t.id, t.duration, t.license, t.source) for t in found] == [
        (Path(e["file"]).stem, e["seconds"], e["license"], e["source"]) for e in clips
    ]
    assert all(Path(t.video).is_file() for t in found)
    rabbit = found[0]
    assert [s.text for s in rabbit.until(1.0).segments] == ["grey rabbit in a hole", "rabbit crawls out"]
    assert rabbit.until(1.0).segments[0].end == 1.0 and not rabbit.until(5.0).questions
    for t in found:
        check_timeline(normalise(t))


def test_lines_and_faults(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"file": "a.mp4", "seconds": 4, "lines": {"2": "b.", "0": "a."}, "questions": [["q", "r"]]},
        {"file": "a.png", "caption": "c"},
    ]
    (timeline,) = read("clips", write(tmp_path / "a.json", rows))
    assert told(timeline) == [("event", 0.0, 2.0, "a"), ("event", 2.0, 4.0, "b")]
    assert timeline.questions[0].evidence == (0.0, 4.0)
    for lines, message in (
        ({"x": "a"}, "field lines is 'x'; it must be seconds"),
        (["a"], "it must be an object of texts by second"),
    ):
        with pytest.raises(InputError, match=message):
            read("clips", write(tmp_path / "a.json", [{**rows[0], "lines": lines}]))
    with pytest.raises(InputError, match="field questions is"):
        read("clips", write(tmp_path / "a.json", [{**rows[0], "questions": ["q"]}]))
