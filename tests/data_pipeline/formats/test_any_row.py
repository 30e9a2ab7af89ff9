"""Whatever JSON a row is, it becomes a sound sample or is left out with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats.alpaca import AlpacaFormat
from data_pipeline.formats.importing import ImportOptions, import_rows
from data_pipeline.formats.llava import LlavaFormat
from data_pipeline.formats.media_files import MediaFiles
from data_pipeline.formats.parsed import RowFormat
from data_pipeline.formats.report import ImportReport
from data_pipeline.formats.sharegpt import PLAIN_TAGS, ShareGptFormat
from data_pipeline.shards.annotations import read_annotations, write_annotations
from model.errors import InputError

FORMATS: list[RowFormat] = [
    ShareGptFormat(),
    ShareGptFormat("messages", tags=PLAIN_TAGS),
    AlpacaFormat(),
    AlpacaFormat("text", None, None),
    LlavaFormat(),
]
REALTIME = '[RealTime QA][INFO]{"video_path": "a.mp4", "time_info": '
texts = st.sampled_from(
    ["", "a", "<image>", "<video>", "<|video|><|image|>", "\ud800", "a\0b", "human", "gpt", "user", "assistant", "system"]
    + ["function_call", "[RealTime QA][PLACEHOLDER]", REALTIME + "[0, 1]}", REALTIME + "[NaN]}", REALTIME + "{}}", "../" * 9]
)
keys = st.sampled_from(["from", "value", "role", "content", "instruction", "input", "output", "history", "system", "text", "id"])
columns = st.sampled_from(
    ["messages", "conversations", "images", "videos", "image", "video", "audios", "tools", "chosen", "rejected"]
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(-2, 10**30), st.floats(), texts)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3), max_leaves=8)
turns = st.lists(
    st.fixed_dictionaries({"from": texts, "value": texts}) | st.fixed_dictionaries({"role": texts, "content": texts})
)
rows = st.one_of(
    values,
    st.dictionaries(columns | keys, turns | values, max_size=6),
    st.fixed_dictionaries({"conversations": turns, "image": values, "video": values}),
    st.fixed_dictionaries({"messages": turns, "videos": st.lists(texts, max_size=3)}),
)


@given(row=rows, row_format=st.sampled_from(FORMATS), keep=st.booleans())
def test_any_row_is_sound_or_told(tmp_path_factory: pytest.TempPathFactory, row: Any, row_format: RowFormat, keep: bool) -> None:
    report = ImportReport()
    files = MediaFiles([Path("/nowhere")], workers=1)
    out = tmp_path_factory.getbasetemp() / "any.jsonl"
    made = import_rows([row], row_format, "any", files, ImportOptions(keep_missing=keep), report)
    try:
        assert write_annotations(out, made) == report.kept == 1
    except InputError as error:
        assert "no row of any can be used: " in str(error) and sum(report.dropped.values()) == 1
    else:
        assert len(list(read_annotations(out))) == 1
    assert report.rows == 1
