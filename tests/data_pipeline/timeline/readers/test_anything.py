"""Whatever a file holds: timelines that are sound, or one clear error."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.timeline.normalise import normalise
from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.registry import read_source
from data_pipeline.timeline.timeline import check_timeline
from data_pipeline.timeline.values import timeline_from_dict, timeline_to_dict
from model.errors import InputError

NAMES = st.sampled_from(
    ["video", "id", "duration", "captions", "events", "timestamps", "sentences", "segment", "start", "end", "caption", "label",
     "lines", "database", "videos", "annotations", "questions", "question", "answer", "evidence", "choices", "subject", "value",
     "change", "level", "narration_pass_1", "narrations", "timestamp_sec", "entities", "evident", "salience", "language", "file"]
)  # fmt: skip
LEAVES = st.sampled_from(
    [None, True, 0, 1, 2.5, -3, 10**400, float("nan"), "", "a", "1", "0:01", "1:2:3", "\ud800", "x\0y", "state", "B"]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=25
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, min_size=2, max_size=9), min_size=1, max_size=3)


@pytest.mark.parametrize("kind", ["captions", "events", "qa", "clips", "timelines"])
@settings(max_examples=40)
@given(content=VALUES | ROWS, lines=st.booleans())
def test_any_content(kind: str, content: object, lines: bool) -> None:
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.jsonl" if lines else "a.json")
        path.write_text("\n".join(map(json.dumps, content)) if lines and isinstance(content, list) else json.dumps(content))
        try:
            for timeline in read_source(kind, path, ReadOptions(on_fault=said.append, last_end=True)):
                check_timeline(timeline)
                check_timeline(normalise(timeline))
                assert timeline_from_dict(timeline_to_dict(timeline)) == timeline
        except InputError as error:
            said.append(str(error))
    assert all(text and "\n" not in text for text in said)
