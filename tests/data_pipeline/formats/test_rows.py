"""Files of rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from data_pipeline.formats.report import RowError
from data_pipeline.formats.rows import count_rows, read_rows, row_files
from model.errors import InputError
from tests.data_pipeline.formats.helpers import import_file, save


def test_lines_under_either_name(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"a": "é"}]
    text = "\ufeff" + "\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n"
    for name in ("r.jsonl", "r.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert list(read_rows([tmp_path / name])) == rows
    assert list(read_rows([save(tmp_path, rows, "list.json")])) == rows


def test_a_broken_line_costs_one_row(tmp_path: Path) -> None:
    text = json.dumps({"text": "a"})
    broken = [b"{broken", b"[" * 100000, b"1" * 5000, b'{"text": "\xff"}']
    for name in ("r.jsonl", "r.json"):
        (tmp_path / name).write_bytes(b"\n".join([text.encode(), *broken, text.encode()]) + b"\n")
        rows = list(read_rows(row_files(tmp_path / name)))
        assert [isinstance(r, RowError) for r in rows] == [False, True, True, True, True, False]
    kept, report = import_file(tmp_path / "r.jsonl")
    assert len(kept) == 2 and dict(report.dropped) == {"line is not JSON": 3, "line is not UTF-8": 1}
    assert report.examples["line is not JSON"][0].startswith("row 1: r.jsonl line 2: ")
    assert report.examples["line is not UTF-8"][0].startswith("row 4: r.jsonl line 5: ")


def test_tables_and_texts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('instruction,output\n"a, b","c\nd"\n')
    assert list(read_rows([tmp_path / "t.csv"])) == [{"instruction": "a, b", "output": "c\nd"}]
    assert import_file(tmp_path / "t.csv")[0][0].sample.messages[1].content == "c\nd"
    (tmp_path / "t.txt").write_text("first\n\nsecond\n")
    kept, _ = import_file(tmp_path / "t.txt")
    assert [a.sample.messages[1].content for a in kept] == ["first", "second"]
    assert {a.sample.template for a in kept} == {"mllama_pretrain"} and count_rows([tmp_path / "t.txt"]) == 3


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        save(tmp_path, [{"text": name}], f"rows/{name}.jsonl")
    assert [r["text"] for r in read_rows(row_files(tmp_path / "rows"))] == ["a", "b"]
    assert [a.sample.messages[1].content for a in import_file(tmp_path / "rows")[0]] == ["a", "b"]
    save(tmp_path, [], "rows/c.json")
    with pytest.raises(InputError, match=r"holds \.json, \.jsonl; it must hold rows in files of one kind"):
        row_files(tmp_path / "rows")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", b"[1", "is not JSON"),
        ("r.json", b'{"a": 1}', "must hold a JSON list"),
        ("r.json", b"[" * 100000, "is not JSON"),
        ("r.json", b"[" + b"1" * 5000 + b"]", "is not JSON: Exceeds the limit"),
        ("r.jsonl", b'"\xff"', "is not UTF-8"),
        ("r.csv", b"a,b\r\n\x00,\xff", "is not UTF-8"),
        ("r.xml", b"", "is no file of rows; use one of"),
        ("r.jsonl", b"", "no row of r can be used: it holds no row"),
        ("r.jsonl", b"1\n", r"row is not an object \(1\)"),
    ],
)
def test_files_that_are_not_of_their_kind_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_file(tmp_path / name)


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_tables_of_arrow_are_read_where_pyarrow_is_installed(tmp_path: Path, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": str(i)}]} for i in range(3)]
    table = pyarrow.Table.from_pylist(rows)
    path = tmp_path / f"r.{kind}"
    if kind == "parquet":
        parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_stream(str(path), table.schema) as out:
            out.write_table(table)
    assert list(read_rows([path])) == rows
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=f"r.{kind} is not"):
        list(read_rows([path]))


def test_without_pyarrow_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "r.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="needs pyarrow; install it"):
        import_file(tmp_path / "r.parquet")
