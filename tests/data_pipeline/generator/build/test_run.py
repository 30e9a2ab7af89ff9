"""Whole builds: the same bytes whoever makes them and however often they are killed."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from data_pipeline.generator.build.config import BuildConfig, GateConfig, OutputConfig, RowsConfig
from data_pipeline.generator.build.folder import BuildFolder, settings_of
from data_pipeline.generator.build.run import build
from data_pipeline.realtime.rules import check_dialogue
from data_pipeline.realtime.values import dialogue_from_dict
from data_pipeline.shards.info import check_shards, read_samples
from inference.evaluation.storage import load_scenarios
from model.errors import InputError
from tests.data_pipeline.generator.build.small import contents, rows, video_config, world_config
from tests.data_pipeline.shards.annotated import killed_at


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus that nothing has disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build(world_config(), out)
    return out


def test_what_lies_there(whole: Path) -> None:
    summary = json.loads((whole / "build.json").read_text())
    assert [summary["rows"][split] for split in ("train", "validation", "test")] == [6, 2, 2]
    for name, count in summary["rows"].items():
        shard = whole / "shards" / name
        assert check_shards(shard) == [] and len(list(read_samples(shard))) == count == summary["shards"][name]["samples"]
    assert [row["id"] for row in rows(whole, "train")] == [f"train-{i:07d}" for i in range(6)]
    for split in ("train", "validation", "test"):
        for row in rows(whole, split):
            assert not check_dialogue(dialogue_from_dict(row, row["id"]), lambda text: len(text.split()))
    scenarios = load_scenarios(whole / "scenarios" / "test.jsonl")
    assert [s.id for s in scenarios] == [row["id"] for row in rows(whole, "test")]


def test_clips_of_two_splits_differ(whole: Path) -> None:
    media = [p.read_bytes() for p in (whole / "parts").glob("*/*/media/*.mp4")]
    assert len(media) == len(set(media)) == 10


def test_the_number_of_workers_and_a_second_call_change_nothing(tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "out"
    config = world_config(outputs=dataclasses.replace(world_config().outputs, shards=False))
    expected = {name: data for name, data in contents(whole).items() if not name.startswith(("shards", "settings"))}
    for workers in (2, 1):
        build(config, out, workers=workers)
        assert {name: data for name, data in contents(out).items() if name != "settings.json"} == expected, workers
    assert json.loads((out / "build.json").read_text())["rows_made"] == 0


def test_more_rows_keep_those_that_were_there(tmp_path: Path, whole: Path) -> None:
    more = world_config(rows=RowsConfig(train=8, validation=0, test=0), outputs=OutputConfig(card=False, shards=False))
    build(more, tmp_path / "out")
    assert rows(tmp_path / "out", "train")[:6] == rows(whole, "train")


def test_killed_before_any_operation_on_files_and_run_again(tmp_path: Path, whole: Path) -> None:
    expected, kills = contents(whole), 0
    for operation in random.Random(7).sample(range(1, 260), 5):
        out = tmp_path / str(operation)
        kills += killed_at(operation, partial(build, world_config(), out), out)
        build(world_config(), out)
        assert contents(out) == expected, operation
        shutil.rmtree(out)
    assert kills >= 3


def test_killed_again_and_again(tmp_path: Path, whole: Path) -> None:
    out, operation = tmp_path / "out", 5
    while killed_at(operation, partial(build, world_config(), out), out):
        operation += 43
    assert operation > 5 and contents(out) == contents(whole)


def test_videos_killed_before_any_operation_on_files(tmp_path: Path) -> None:
    config = video_config(tmp_path / "in")
    build(config, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    assert any(rows(tmp_path / "whole", split) for split in ("train", "validation", "test"))
    for operation in (1, 20, 90):
        out = tmp_path / str(operation)
        killed_at(operation, partial(build, config, out), out)
        build(config, out)
        assert contents(out) == expected, operation


PROGRAM = """
import sys
from pathlib import Path
from data_pipeline.generator.build.run import build
from tests.data_pipeline.generator.build.test_run import wide_config
build(wide_config(), Path(sys.argv[1]), workers=2)
"""


def wide_config() -> BuildConfig:
    """Twelve parts, no shards: starting processes for those takes longer than the rest."""
    return world_config(
        rows=RowsConfig(train=40, validation=4, test=4), rows_per_part=4, outputs=OutputConfig(card=False, shards=False)
    )


def test_a_killed_process_with_workers_leaves_none_behind_and_goes_on(tmp_path: Path) -> None:
    build(wide_config(), tmp_path / "whole")
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    limit = time.monotonic() + 60
    while process.poll() is None and not list(out.glob("parts/*/[0-9]*")) and time.monotonic() < limit:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    made = len(list(out.glob("parts/*/[0-9]*")))
    assert 0 < made < 12
    folder = BuildFolder(out)
    while time.monotonic() < limit:  # workers notice that their pipe has closed, and end
        try:
            folder.open(settings_of(wide_config()))
            break
        except InputError:
            time.sleep(0.02)
    folder.close()
    build(wide_config(), out)
    assert contents(out) == contents(tmp_path / "whole")


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    out, plain = tmp_path / "out", OutputConfig(card=False, shards=False)
    build(world_config(outputs=plain, rows=RowsConfig(train=2, validation=0, test=0)), out)
    other = world_config(outputs=plain, rows=RowsConfig(train=2, validation=0, test=0), seed=3)
    before = contents(out)
    with pytest.raises(InputError, match=r"other settings \(seed: 0 there, 3 now\).*--overwrite"):
        build(other, out)
    assert contents(out) == before
    build(other, out, overwrite=True)
    assert contents(out) != before and BuildFolder(out).settings() == settings_of(other)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda out: out.write_text("x"), "is a file"),
        (lambda out: (out.mkdir(), (out / "mine.txt").write_text("x")), "holds other files"),
        (lambda out: (out.mkdir(), (out / "settings.json").write_text("{")), "is damaged"),
    ],
)
def test_folders_that_are_no_corpora_stay_as_they_are(tmp_path: Path, prepare: object, message: str) -> None:
    out = tmp_path / "out"
    prepare(out)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        build(world_config(), out, overwrite=True)
    assert out.read_text() == "x" if out.is_file() else not (out / "parts").exists()


def test_two_processes_never_build_in_one_folder(tmp_path: Path) -> None:
    first = BuildFolder(tmp_path / "out")
    first.open(settings_of(world_config()))
    with pytest.raises(InputError, match="another process builds in"):
        build(world_config(), tmp_path / "out")
    first.close()


def test_nothing_to_make_and_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give rows\.train"):
        build(world_config(rows=RowsConfig(train=0, validation=0, test=0)), tmp_path / "a")
    silent = world_config(gates=GateConfig(silence_ratio=(0.0, 0.0)))
    with pytest.raises(InputError, match="no row is left"):
        build(silent, tmp_path / "b")


def test_memory_is_told_at_several_points_for_every_process(tmp_path: Path) -> None:
    config = world_config(outputs=OutputConfig(card=False, shards=False))
    memory = build(config, tmp_path / "out", workers=2)["memory"]
    assert len(memory["rows"]) == len(memory["worker_bytes"]) == len(memory["main_bytes"]) == 5
    assert set(memory["peak_bytes"]) >= {"main", "worker 1"}
    for name, peak in memory["peak_bytes"].items():
        assert 10 * 2**20 < peak < 2**34, name


def test_rejections_are_counted_with_an_example(tmp_path: Path) -> None:
    config = world_config(gates=GateConfig(silence_ratio=(0.5, 0.8)), outputs=OutputConfig(card=False, shards=False))
    summary = build(config, tmp_path / "out")
    lines = [json.loads(x) for p in (tmp_path / "out/parts").glob("*/*/rejected.jsonl") for x in p.read_text().splitlines()]
    assert lines and sum(r["count"] for r in summary["rejections"]) == len(lines)
    assert all(r["example"] and r["reason"] for r in summary["rejections"])


def test_settings_decide_over_the_rows_alone(tmp_path: Path) -> None:
    plain = dataclasses.replace(world_config(), outputs=OutputConfig(card=False, shards=False))
    assert settings_of(plain) != settings_of(dataclasses.replace(plain, seed=1))
    assert isinstance(plain, BuildConfig) and json.loads(json.dumps(settings_of(plain))) == settings_of(plain)
