"""Whole sets on disk: shards, scenarios, real media, tokenizer."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from data_pipeline.assets import real
from data_pipeline.shards.schema import check_sample
from data_pipeline.text.tokenizer import Tokenizer
from data_pipeline.world import cli
from data_pipeline.world.generate import write_world
from inference.evaluation.storage import load_scenarios
from model.errors import InputError
from moss_train.cli.main import main

COUNTS = {"dense": 3, "text": 3, "cap": 3, "trk": 3, "qa": 3, "rt": 3, "stream": 5, "ask": 2}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix in (".tar", ".jsonl", ".mp4")
    }


def test_sets_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    summary = write_world(tmp_path / "a", "train", COUNTS, progress=lambda *news: told.append(news))
    write_world(tmp_path / "b", "train", COUNTS, workers=2)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert {task: summary[task]["samples"] for task in COUNTS if task in summary} == {t: 3 for t in COUNTS if COUNTS[t] == 3}
    assert ("stream", 5, 5) in told
    with tarfile.open(tmp_path / "a/train/rt/shard-000000.tar") as tar:
        sample = json.loads(tar.extractfile(next(n for n in tar.getnames() if n.endswith(".json"))).read())  # type: ignore[union-attr]
    assert sample["kind"] == "realtime" and sample["media"][0]["num_frames"] == 16


def test_splits_share_no_clip(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_world(tmp_path, split, {"stream": 4})
    train, test = ({v for k, v in _bytes(tmp_path / s).items() if k.endswith(".mp4")} for s in ("train", "test"))
    assert len(train) == len(test) == 4 and not train & test


def test_scenarios_load_as_the_evaluation_reads_them(tmp_path: Path) -> None:
    write_world(tmp_path, "test", {"stream": 8, "ask": 2})
    scenarios = load_scenarios(tmp_path / "test/scenarios.jsonl")
    assert [len(s.questions) for s in scenarios] == [0] * 8 + [3] * 2
    assert [i for i, s in enumerate(scenarios) if s.prompts] == [3, 7]
    assert all((tmp_path / "test" / s.video).is_file() for s in scenarios)


def test_bad_requests_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="qq"):
        write_world(tmp_path, "train", {"qq": 1})
    with pytest.raises(InputError, match="count of qa is -1"):
        write_world(tmp_path, "train", {"qa": -1})
    with pytest.raises(InputError, match="nothing to make"):
        write_world(tmp_path, "train", {"qa": 0})
    write_world(tmp_path, "train", {"stream": 1})
    with pytest.raises(InputError, match="exists already"):
        write_world(tmp_path, "train", {"stream": 1})


def test_real_media_are_complete_and_small() -> None:
    total = 0
    for split in ("train", "test"):
        for samples in real.real_samples(split).values():
            for key, sample, files in samples:
                check_sample(sample, key)
                assert sample.license and sample.source
                total += sum(map(len, files.values()))
    credits = (Path(real.__file__).parent / "CREDITS.md").read_text()
    assert all(entry["file"] in credits for entry in real.entries())
    assert sum(p.stat().st_size for p in (Path(real.__file__).parent / "media").iterdir()) < 1_000_000


def test_command_writes_world_real_media_and_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "world", str(tmp_path), "--split", "test", "--qa", "2", "--real", "--tokenizer", "1000"]) == 0
    assert "test/qa: 2 samples" in capsys.readouterr().out.replace("\n", "")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for word in ("red", " ball", " appears", "assistant", "user", " going", " quiet", " rabbit"):
        assert len(tokenizer.encode(word)) == 1, word
    streams = load_scenarios(tmp_path / "test/real_scenarios.jsonl")
    assert {s.meta["split"] for s in streams} == {"train", "test"}
    assert cli.ABOUT.keys() == COUNTS.keys()
