"""LlamaFactory's registry: what its entries mean, which are taken, and the command that takes all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.formats.importing import ImportOptions
from data_pipeline.formats.registry import import_registry
from data_pipeline.shards.annotations import read_annotations
from model.errors import InputError
from moss_train.cli.main import main
from tests.data_pipeline.formats.helpers import import_file, save
from tests.data_pipeline.helpers import make_image

ALPACA = {"instruction": "Name it.", "input": "<image>", "output": "A kite.", "images": ["media/kite.png"]}
TALK = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
OPENAI = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "kite.png").write_bytes(make_image())
    return tmp_path


def registry(folder: Path, **entries: Any) -> Path:
    return save(folder, entries, "dataset_info.json")


def test_every_local_entry_is_imported_and_the_others_are_listed(data: Path) -> None:
    save(data, [ALPACA], "deep/alpaca.json")  # media count from the registry's folder, not from the file's
    save(data, [TALK] * 3, "talk.jsonl")
    save(data, [TALK], "many/1.json")
    save(data, [TALK], "many/2.json")
    save(data, [{"conversations": []}], "empty.json")
    path = registry(
        data,
        pictures={"file_name": "deep/alpaca.json", "columns": {"prompt": "instruction", "query": "input", "response": "output"}},
        talk={"file_name": "talk.jsonl", "formatting": "sharegpt"},
        many={"file_name": "many", "formatting": "sharegpt"},
        empty={"file_name": "empty.json", "formatting": "sharegpt"},
        hub={"hf_hub_url": "somebody/data", "formatting": "sharegpt"},
        gone={"file_name": "gone.json"},
        pairs={"file_name": "talk.jsonl", "ranking": True},
        kto={"file_name": "talk.jsonl", "columns": {"kto_tag": "label"}},
    )
    report = import_registry(path, data / "out", ImportOptions())
    assert {name: rows.kept for name, rows in report.imported.items()} == {"pictures": 1, "talk": 3, "many": 2}
    assert list(report.failed) == ["empty"] and "no messages (1)" in report.failed["empty"]
    assert {name: reason.split(";")[0] for name, reason in report.skipped.items()} == {
        "hub": "it names no local file (file_name) but hf_hub_url somebody/data",
        "gone": f"{data / 'gone.json'} does not exist",
        "pairs": "it holds preferences (ranking or kto_tag)",
        "kto": "it holds preferences (ranking or kto_tag)",
    }
    assert sorted(p.name for p in (data / "out").iterdir()) == [
        "import.report.json",
        "many.jsonl",
        "pictures.jsonl",
        "talk.jsonl",
    ]
    assert json.loads((data / "out" / "import.report.json").read_text())["imported"]["talk"]["kept"] == 3
    picture = next(read_annotations(data / "out" / "pictures.jsonl"))
    assert picture.sample.messages[0].content == "Name it.\n<|image|>" and picture.sample.media[0].width == 40


@pytest.mark.parametrize(
    ("entry", "rows", "messages"),
    [
        ({}, [{"instruction": "a", "input": "", "output": "b", "history": [["c", "d"]], "system": "s"}], "s|c|d|a|b"),
        ({"columns": {"prompt": "q", "response": "r"}}, [{"q": "a", "r": "b", "input": "not named", "system": "no"}], "a|b"),
        ({"columns": {"prompt": "text"}}, [{"text": "a tale"}], "|a tale"),
        ({"formatting": "sharegpt"}, [TALK], "a|b"),
        ({"formatting": "openai"}, [OPENAI], "a|b"),
        ({"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "s"}}, [{**TALK, "s": "S"}], "S|a|b"),
        (
            {
                "formatting": "sharegpt",
                "columns": {"messages": "m"},
                "tags": {"role_tag": "r", "content_tag": "c", "user_tag": "U", "assistant_tag": "A", "system_tag": "S"},
            },
            [{"m": [{"r": "S", "c": "s"}, {"r": "U", "c": "a"}, {"r": "A", "c": "b"}]}],
            "s|a|b",
        ),
    ],
)
def test_columns_and_tags(data: Path, entry: dict[str, Any], rows: list[Any], messages: str) -> None:
    save(data, rows)
    kept, _ = import_file(registry(data, mine={"file_name": "rows.json", **entry}), "mine")
    assert "|".join(m.content for m in kept[0].sample.messages) == messages
    assert kept[0].sample.template == ("mllama_pretrain" if messages.startswith("|") else "mllama")
    assert kept[0].key == "mine-000000" and kept[0].sample.dataset == "mine"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": "a", "output": ""}, "no answer"),
        ({"instruction": 1, "output": "b"}, "column is not text"),
        ({"instruction": "a", "output": "b", "history": ["a", "b"]}, "history cannot be read"),
        ({"instruction": "a", "output": "b", "history": "a"}, "history cannot be read"),
        ({"instruction": "<image>", "output": "b"}, "markers and media do not match"),
        ({"instruction": "a", "output": "b", "images": [{"bytes": "x"}]}, "media column cannot be read"),
    ],
)
def test_bad_rows_of_alpaca_are_told(data: Path, row: dict[str, Any], reason: str) -> None:
    kept, report = import_file(save(data, [row, {"instruction": "a", "output": "b"}]))
    assert len(kept) == 1 and dict(report.dropped) == {reason: 1}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file_name": "rows.json", "formatting": "other"}, "its formatting is 'other'"),
        ({"file_name": "rows.json", "columns": ["a"]}, "its field columns must be an object"),
        ({"file_name": "rows.json", "tags": {"role_tag": 1}}, "its field tags must be an object"),
        ({"file_name": 7}, "names no local file"),
        ({"script_url": "x"}, "but script_url x"),
        ("rows.json", "it is not an object"),
        ({"file_name": "media"}, r"kite\.png is no file of rows"),
    ],
)
def test_bad_entries_are_told(data: Path, entry: Any, message: str) -> None:
    save(data, [TALK])
    with pytest.raises(InputError, match=f"dataset_info.json entry mine: .*{message}"):
        import_file(registry(data, mine=entry), "mine")
    with pytest.raises(InputError, match=f"no entry of .* can be imported; mine: .*{message}"):
        import_registry(registry(data, mine=entry), data / "out", ImportOptions())
    assert not (data / "out").exists()


def test_the_command(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(data, [TALK], "talk.json")
    entry = {"file_name": "talk.json", "formatting": "sharegpt"}
    path = str(registry(data, one=entry, two=entry, far={"hf_hub_url": "x/y"}))
    assert main(["data", "import", "--dataset-info", path, "--names", "one", str(data / "a")]) == 0
    assert sorted(p.name for p in (data / "a").iterdir()) == ["import.report.json", "one.jsonl"]
    assert main(["data", "import", "--dataset-info", path, str(data / "b")]) == 0
    assert "far: skipped: it names no local file" in capsys.readouterr().out
    assert main(["data", "import", path, str(data / "c.jsonl"), "--name", "two"]) == 0
    assert (data / "c.jsonl").is_file() and (data / "c.jsonl.report.json").is_file()
    assert main(["data", "import", "--dataset-info", path, "--names", "one,far", str(data / "d")]) == 2
    assert main(["data", "import", path, str(data / "d"), "--names", "one"]) == 2
    assert not (data / "d").exists() and "entry far: it names no local file" in capsys.readouterr().err


def test_two_entries_never_share_a_file(data: Path) -> None:
    save(data, [TALK], "talk.json")
    entry = {"file_name": "talk.json", "formatting": "sharegpt"}
    report = import_registry(registry(data, **{"a b": entry, "a/b": entry}), data / "out", ImportOptions())
    assert list(report.imported) == ["a b"] and "is that of the entry a b" in report.failed["a/b"]
