"""A ledger as the list of samples to leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.loader.skip_list import SkipList
from model.errors import InputError


def written(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines))
    return str(path)


def test_bad_samples_are_left_out_at_their_point(tmp_path: Path) -> None:
    skip = SkipList.read(
        written(
            tmp_path / "q.jsonl",
            '{"kind": "bad", "dataset": "d", "shard": "s0", "key": "k0", "at": "decode", "reason": "r"}',
            '{"kind": "skipped", "dataset": "d", "shard": "s0", "key": "k1", "at": "plan", "reason": "r"}',
            '{"kind": "fatal", "dataset": "", "shard": "", "key": "", "at": "", "reason": "r"}',
            "",
            '{"dataset": "d", "key": "k2"}',
            '{"dataset": "d", "key": "k3", "at": "decode"}',
            '{"dataset": "d", "key": "k3", "at": "plan"}',
        )
    )
    points = {
        (key, at) for key in ("k0", "k1", "k2", "k3") for at in ("read", "plan", "decode") if skip.names("d", "s0", key, at)
    }
    assert points == {("k0", "decode"), ("k2", "read"), ("k3", "plan")}  # the earliest, where a sample has several
    assert not skip.names("d", "s1", "k0", "decode") and not skip.names("e", "s0", "k2", "read")
    assert skip.names("d", "s1", "k2", "read")  # a line without a shard means any


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "bad", "dataset": "d", "sha', r"line 2 of .*q\.jsonl is cut or no JSON; complete or delete the line"),
        ("[1]", r"line 2 of .* is no JSON object"),
        ('{"dataset": "d"}', r"line 2 of .* has key = None; give the key as text"),
        ('{"dataset": "", "key": "k"}', r"line 2 of .* has dataset = ''"),
        ('{"dataset": "d", "key": 7}', r"line 2 of .* has key = 7"),
        ('{"dataset": "d", "key": "k", "shard": null}', r"line 2 of .* has shard = None"),
        ('{"dataset": "d", "key": "k", "at": "later"}', r"line 2 of .* has at = 'later'; use one of read, plan, decode"),
        ('{"dataset": "d", "key": "k", "at": []}', r"line 2 of .* has at = \[\]"),
        ('{"kind": "odd", "dataset": "d", "key": "k"}', r"line 2 of .* has the kind 'odd'"),
        pytest.param("[" * 100_000, r"line 2 of .* is cut or no JSON", id="depth"),
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path / "q.jsonl", '{"dataset": "d", "key": "k"}', line)
    with pytest.raises(InputError, match=message):
        SkipList.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.skip_samples: .*none\.jsonl cannot be read \(No such file or directory\)"):
        SkipList.read(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match=r"data\.skip_samples: .* cannot be read \(Is a directory\)"):
        SkipList.read(str(tmp_path))
    assert not SkipList.read(None).names("d", "s", "k", "read")
