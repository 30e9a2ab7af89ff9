"""Describing a folder, our own or another tool's, and opening ours with plain webdataset."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import webdataset

from data_pipeline.shards.annotations import read_annotations
from data_pipeline.shards.describe import describe_folder
from data_pipeline.shards.plan import PrepareOptions
from data_pipeline.shards.prepare import prepare
from data_pipeline.shards.schema import sample_from_dict
from model.errors import InputError
from moss_train.cli.main import main
from tests.data_pipeline.helpers import text_sample, write_mixture
from tests.data_pipeline.shards.annotated import annotate


def test_plain_webdataset_reads_the_same_samples(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 10)
    prepare(source, tmp_path / "out", PrepareOptions(samples_per_shard=4))
    pattern = str(tmp_path / "out" / "shard-{000000..000002}.tar")
    found = list(webdataset.WebDataset(pattern, shardshuffle=False, empty_check=False).decode())
    for sample, annotation in zip(found, read_annotations(source), strict=True):
        assert sample["__key__"] == annotation.key
        assert sample_from_dict(sample["json"]).messages == annotation.sample.messages
        assert {n: sample[n] for n in annotation.files} == {n: p.read_bytes() for n, p in annotation.files.items()}
    pictures = [s["0.jpg"] for s in webdataset.WebDataset(pattern, shardshuffle=False).decode("pil") if "0.jpg" in s]
    assert [picture.size for picture in pictures] == [(40, 30)] * 3


def test_statistics_are_counted_where_they_are_not_stored(tmp_path: Path) -> None:
    source = annotate(tmp_path / "in", 10)
    prepare(source, tmp_path / "out", PrepareOptions(samples_per_shard=4))
    stored = describe_folder(tmp_path / "out")
    path = tmp_path / "out" / "summary.json"
    summary = json.loads(path.read_text())
    del summary["statistics"]
    path.write_text(json.dumps(summary))
    counted = describe_folder(tmp_path / "out")
    assert counted == stored and counted["statistics"]["frames"] == 5 * 4
    assert counted["statistics"]["clip_seconds"]["max"] == 4 and counted["shard_megabytes"]["count"] == 3


def test_shards_of_another_tool_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mixture(tmp_path, 6)
    for path in (tmp_path / "video" / "summary.json", tmp_path / "video" / ".nv-meta" / ".info.json"):
        path.unlink()
    assert main(["data", "info", str(tmp_path / "video")]) == 0
    out = capsys.readouterr().out
    assert "6 samples in 3 shards" in out and "written by another tool" in out and "endings: 0.mp4 6, json 6" in out
    assert "no index of Megatron-Energon" in out and "24 frames" in out


def test_samples_of_another_schema_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("a.jpg", "a.txt", "b.jpg", "b.txt"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"xyz"))
    described = describe_folder(tmp_path)
    assert described["samples"] == 2 and described["foreign"]["endings"] == {"jpg": 2, "txt": 2}
    assert main(["data", "info", str(tmp_path)]) == 0
    assert "not of this schema, so training cannot read them: 0.tar sample a has no member a.json" in capsys.readouterr().out


def test_json_is_all_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(annotate(tmp_path / "in", 3, (text_sample,)), tmp_path / "out")
    assert main(["data", "info", str(tmp_path / "out"), "--json", "--check"]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"]["shapes"] == {"text": 3}


def test_no_shards_and_damaged_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a dataset folder"):
        describe_folder(tmp_path)
    (tmp_path / "0.tar").write_bytes(b"junk" * 400)
    with pytest.raises(InputError, match=r"0\.tar cannot be read"):
        describe_folder(tmp_path)
